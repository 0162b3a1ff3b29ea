"""Every metric that /metrics tells."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

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
from gateway.telemetry.text import Labels, Text


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


def exposed(pages: Mapping[str, Page], live: Mapping[str, Page], house: House) -> str:
    """All metrics: counters of all ``pages`` by worker, gauges of those that are ``live``."""
    text = Text()
    total = Counts(since=float("inf"))
    for page in pages.values():
        total = total.plus(page.total)
    _calls(text, total.calls)
    _events(text, total)
    _workers(text, pages, live)
    _engines(text, live, house.engines)
    _house(text, house)
    return "\n".join([*text.lines, ""])


def _calls(text: Text, calls: Mapping[CallKey, Series]) -> None:
    text.simple(
        "ratchet_requests_total",
        "counter",
        "Calls that have a record, by how they ended; those of arm `shadow` are mirrored ones.",
        ((_labels(key, *CallKey._fields), series.calls) for key, series in calls.items()),
    )
    _times(text, calls)
    _spent(text, calls)


def _times(text: Text, calls: Mapping[CallKey, Series]) -> None:
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


def _spent(text: Text, calls: Mapping[CallKey, Series]) -> None:
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


def _events(text: Text, total: Counts) -> None:
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
        ("limits_unchecked", "Requests let in while Redis was away.", total.limits_unchecked),
        ("spans_exported", "Spans that a collector took.", total.spans_exported),
        ("spans_dropped", "Spans that no collector took.", total.spans_dropped),
    ):
        text.simple(f"ratchet_{name}_total", "counter", meaning, [((), value)])


def _workers(text: Text, pages: Mapping[str, Page], live: Mapping[str, Page]) -> None:
    text.simple(
        "ratchet_worker_starts_total",
        "counter",
        "How often a worker has started.",
        (((("worker", name),), page.counts.starts) for name, page in pages.items()),
    )
    for name, meaning, field_name in (
        ("in_flight", "Calls under way.", "in_flight"),
        ("capacity", "Calls that a worker takes at once.", "capacity"),
        ("worker_memory_bytes", "Resident memory.", "memory_bytes"),
        ("state_age_seconds", "Since a worker has read keys, aliases, engines.", "state_age_s"),
    ):
        values = {worker: getattr(page.vitals, field_name) for worker, page in live.items()}
        text.simple(f"ratchet_{name}", "gauge", meaning, _by("worker", values))


def _engines(text: Text, live: Mapping[str, Page], engines: tuple[Engine, ...]) -> None:
    states = [
        ((("engine", one.name), ("base", one.base), ("state", one.state)), 1) for one in engines
    ]
    text.simple("ratchet_engine_state", "gauge", "1 for the state that each engine is in.", states)
    seen = {
        one.name: [page.vitals.engines.get(one.name, (0, False)) for page in live.values()]
        for one in engines
    }
    for name, meaning, values in (
        (
            "in_flight",
            "Calls under way at an engine.",
            {engine: sum(calls for calls, _ in told) for engine, told in seen.items()},
        ),
        (
            "benched",
            "Workers that leave an engine alone.",
            {engine: sum(benched for _, benched in told) for engine, told in seen.items()},
        ),
    ):
        text.simple(f"ratchet_engine_{name}", "gauge", meaning, _by("engine", values))


def _house(text: Text, house: House) -> None:
    for name, meaning, samples in (
        (
            "alias_ready",
            "Whether an engine, or its provider, can answer an alias; fallbacks aside.",
            _by("alias", house.ready),
        ),
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
