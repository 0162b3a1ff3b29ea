"""Prometheus' text format, and every metric that it tells.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from gateway.telemetry.board import Page
from gateway.telemetry.counters import (
    DURATION,
    OVERHEAD,
    SHADOW,
    CallKey,
    Counts,
    Histogram,
    Series,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """What the registry says of one engine."""

    name: str
    base: str
    state: str


@dataclass(frozen=True, slots=True)
class House:
    """What is the same whichever worker is asked."""

    engines: tuple[Engine, ...] = ()
    ready: Mapping[str, bool] = field(default_factory=dict)
    """By alias: whether somebody can answer it."""
    spool_bytes: int = 0
    spool_oldest_s: float = 0.0


class _Text:
    """Lines, as they are added."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, meaning: str) -> None:
        self.lines += (f"# HELP {name} {meaning}", f"# TYPE {name} {kind}")

    def sample(self, name: str, labels: Labels, value: float) -> None:
        pairs = ",".join(f'{label}="{_escaped(said)}"' for label, said in labels)
        self.lines.append(f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}")

    def simple(
        self, name: str, kind: str, meaning: str, samples: Iterable[tuple[Labels, float]]
    ) -> None:
        self.family(name, kind, meaning)
        for labels, value in samples:
            self.sample(name, labels, value)

    def histogram(
        self,
        name: str,
        meaning: str,
        bounds: tuple[float, ...],
        samples: Iterable[tuple[Labels, Histogram]],
    ) -> None:
        self.family(name, "histogram", meaning)
        for labels, held in samples:
            ends = [*(repr(bound) for bound in bounds), "+Inf"]
            for end, count in zip(ends, accumulate(held.counts), strict=True):
                self.sample(f"{name}_bucket", (*labels, ("le", end)), count)
            self.sample(f"{name}_sum", labels, held.total)
            self.sample(f"{name}_count", labels, sum(held.counts))


def exposed(pages: Mapping[str, Page], live: Mapping[str, Page], house: House) -> str:
    """All metrics: counters of all ``pages`` by worker, gauges of those that are ``live``."""
    text = _Text()
    total = Counts(since=float("inf"))
    for page in pages.values():
        total = total.plus(page.total)
    _calls(text, total.calls)
    _events(text, total)
    _workers(text, pages, live)
    _house(text, live, house)
    return "\n".join([*text.lines, ""])


def _calls(text: _Text, calls: Mapping[CallKey, Series]) -> None:
    text.simple(
        "ratchet_requests_total",
        "counter",
        "Calls that have a record, by how they ended; those of arm `shadow` are mirrored ones.",
        ((_labels(key, *CallKey._fields), series.calls) for key, series in calls.items()),
    )
    text.histogram(
        "ratchet_request_duration_seconds",
        "From the whole request to the last byte of the answer.",
        DURATION,
        _grouped(
            calls,
            lambda key: (*_labels(key, "alias", "arm", "operation"), _class(key.status)),
            lambda series: series.duration,
        ),
    )
    text.histogram(
        "ratchet_time_to_first_chunk_seconds",
        "From the whole request to the first piece of a streamed answer.",
        DURATION,
        _grouped(
            calls, lambda key: _labels(key, "alias", "arm"), lambda series: series.first_chunk
        ),
    )
    text.histogram(
        "ratchet_overhead_seconds",
        "What the gateway itself took of it.",
        OVERHEAD,
        _grouped(
            {key: series for key, series in calls.items() if key.arm != SHADOW},
            lambda key: _labels(key, "alias", "operation"),
            lambda series: series.overhead,
        ),
    )
    _spent(text, calls)


def _spent(text: _Text, calls: Mapping[CallKey, Series]) -> None:
    tokens: defaultdict[Labels, int] = defaultdict(int)
    cost: defaultdict[Labels, float] = defaultdict(float)
    retries: defaultdict[Labels, int] = defaultdict(int)
    for key, series in calls.items():
        labels = _labels(key, "alias", "arm")
        tokens[*labels, ("type", "input")] += series.input_tokens
        tokens[*labels, ("type", "cached")] += series.cached_tokens
        tokens[*labels, ("type", "output")] += series.output_tokens
        tokens[*labels, ("type", "reasoning")] += series.reasoning_tokens
        cost[labels] += series.cost
        retries[_labels(key, "alias")] += series.retries
    text.simple(
        "ratchet_tokens_total",
        "counter",
        "Tokens; `cached` are part of `input`, `reasoning` of `output`.",
        tokens.items(),
    )
    text.simple(
        "ratchet_cost_total", "counter", "Cost, in the currency of the prices.", cost.items()
    )
    text.simple(
        "ratchet_retries_total", "counter", "Attempts beyond each call's first.", retries.items()
    )


def _events(text: _Text, total: Counts) -> None:
    text.simple(
        "ratchet_engine_requests_total",
        "counter",
        "Calls by the engine that answered.",
        (
            ((("engine", engine), ("status", str(status))), count)
            for (engine, status), count in total.engines.items()
        ),
    )
    text.simple(
        "ratchet_refused_total",
        "counter",
        "Requests that became no call: no key, over a limit, no room.",
        (
            ((("status", str(status)), ("code", code)), count)
            for (status, code), count in total.refused.items()
        ),
    )
    text.histogram(
        "ratchet_loop_lag_seconds", "How late the event loop was.", OVERHEAD, [((), total.lag)]
    )
    for name, meaning, value in (
        ("records_dropped", "Answers given without a record.", total.records_dropped),
        ("spans_exported", "Spans that a collector took.", total.spans_exported),
        ("spans_dropped", "Spans that no collector took.", total.spans_dropped),
    ):
        text.simple(f"ratchet_{name}_total", "counter", meaning, [((), value)])


def _workers(text: _Text, pages: Mapping[str, Page], live: Mapping[str, Page]) -> None:
    text.simple(
        "ratchet_worker_starts_total",
        "counter",
        "How often a worker has started.",
        (((("worker", name),), page.counts.starts) for name, page in pages.items()),
    )
    vitals = {worker: page.vitals for worker, page in live.items()}
    for name, meaning, values in (
        ("in_flight", "Calls under way.", {w: v.in_flight for w, v in vitals.items()}),
        (
            "capacity",
            "Calls that a worker takes at once.",
            {w: v.capacity for w, v in vitals.items()},
        ),
        (
            "worker_memory_bytes",
            "Resident memory.",
            {w: v.memory_bytes for w, v in vitals.items()},
        ),
        (
            "state_age_seconds",
            "How long ago a worker has read the keys, aliases and engines.",
            {w: v.state_age_s for w, v in vitals.items()},
        ),
    ):
        text.simple(f"ratchet_{name}", "gauge", meaning, _by("worker", values))


def _house(text: _Text, live: Mapping[str, Page], house: House) -> None:
    seen = [
        (engine.name, page.vitals.engines.get(engine.name, (0, False)))
        for engine in house.engines
        for page in live.values()
    ]
    in_flight: defaultdict[str, int] = defaultdict(int)
    benched: defaultdict[str, int] = defaultdict(int)
    for name, (calls, is_benched) in seen:
        in_flight[name] += calls
        benched[name] += is_benched
    for name, meaning, samples in (
        (
            "engine_state",
            "1 for the state that each engine is in.",
            [
                ((("engine", one.name), ("base", one.base), ("state", one.state)), 1.0)
                for one in house.engines
            ],
        ),
        ("engine_in_flight", "Calls under way at an engine.", _by("engine", in_flight)),
        ("engine_benched", "Workers that leave an engine alone.", _by("engine", benched)),
        ("alias_ready", "Whether somebody can answer an alias.", _by("alias", house.ready)),
        ("spool_waiting_bytes", "Records on disk, not all in the log.", [((), house.spool_bytes)]),
        ("spool_oldest_seconds", "Age of the oldest of them.", [((), house.spool_oldest_s)]),
    ):
        text.simple(f"ratchet_{name}", "gauge", meaning, samples)


def _grouped(
    calls: Mapping[CallKey, Series],
    labels: Callable[[CallKey], Labels],
    of: Callable[[Series], Histogram],
) -> Iterable[tuple[Labels, Histogram]]:
    """One histogram for all calls with the same labels; none where it would be empty."""
    groups: dict[Labels, Histogram] = {}
    for key, series in calls.items():
        held, group = of(series), labels(key)
        groups[group] = groups[group].plus(held) if group in groups else held
    return ((group, held) for group, held in groups.items() if any(held.counts))


def _labels(key: CallKey, *names: str) -> Labels:
    return tuple((name, str(getattr(key, name))) for name in names)


def _class(status: int) -> tuple[str, str]:
    return ("status", f"{status // 100}xx")


def _by(label: str, values: Mapping[str, float]) -> list[tuple[Labels, float]]:
    return [(((label, name),), float(value)) for name, value in values.items()]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
