"""Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterable
from itertools import accumulate

from gateway.telemetry.counters import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Text:
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


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
