"""What one worker counts: plain numbers that the event loop adds to and other threads read.

A reader may see a call half counted, never a number that goes down.
"""

from collections import Counter
from typing import NamedTuple, Self

import msgspec

from gateway.telemetry.names import SECONDS

DURATION = (*SECONDS, 163.84, 327.68, 655.36)
"""Boundaries of answers' times, 10 ms to 11 minutes; the conventions' are their beginning."""
OVERHEAD = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005),
    *(0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
"""Boundaries of what the gateway itself takes, and of the event loop's lag."""

MAX_SERIES = 1000
"""Beyond as many, a label that is new is told as ``other``: a guard, not a budget."""
OTHER = "other"
SHADOW = "shadow"
"""The arm of mirrored calls, which keep no client waiting."""


class CallKey(NamedTuple):
    """The labels of calls that are counted together. Each is of a closed set."""

    alias: str
    arm: str
    operation: str
    provider: str
    status: int
    error: str


class Histogram(msgspec.Struct, gc=False, array_like=True):
    """Of seconds. ``counts`` are by bucket, not cumulative, the last one without a bound."""

    counts: list[int]
    total: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Self:
        """An empty one."""
        return cls([0] * (len(bounds) + 1))

    def plus(self, other: Self) -> "Histogram":
        """Both together; they must have the same bounds."""
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.total + other.total)


class Series(msgspec.Struct, array_like=True):
    """What was counted of calls with the same labels."""

    duration: Histogram
    first_chunk: Histogram
    overhead: Histogram
    calls: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0

    @classmethod
    def empty(cls) -> Self:
        """Nothing counted yet."""
        return cls(Histogram.of(DURATION), Histogram.of(DURATION), Histogram.of(OVERHEAD))

    def plus(self, other: Self) -> "Series":
        """Both together."""
        return Series(
            self.duration.plus(other.duration),
            self.first_chunk.plus(other.first_chunk),
            self.overhead.plus(other.overhead),
            *(
                mine + theirs
                for mine, theirs in zip(
                    msgspec.structs.astuple(self)[3:],
                    msgspec.structs.astuple(other)[3:],
                    strict=True,
                )
            ),
        )


class Counts(msgspec.Struct):
    """Everything that one worker has counted since ``since``, over all of its lives."""

    since: float
    """Seconds since 1970."""
    calls: dict[CallKey, Series] = {}
    engines: dict[tuple[str, int], int] = {}
    """Answers by engine and status."""
    refused: dict[tuple[int, str], int] = {}
    """Requests that became no call, by status and code."""
    lag: Histogram = msgspec.field(default_factory=lambda: Histogram.of(OVERHEAD))
    """How late the event loop was."""
    starts: int = 0
    spans_exported: int = 0
    spans_dropped: int = 0
    records_dropped: int = 0
    """Answers that were given without a record."""
    limits_unchecked: int = 0
    """Requests that were let in though nobody could be asked for their limits."""

    def begun(self, key: CallKey) -> Series:
        """The series of ``key``, new; one of ``other`` aliases when there are too many."""
        if len(self.calls) >= MAX_SERIES:
            key = key._replace(alias=OTHER)
        return self.calls.setdefault(key, Series.empty())

    def plus(self, other: Self) -> "Counts":
        """Both together, since the earlier of the two."""
        return Counts(
            since=min(self.since, other.since),
            calls={
                key: _sum(self.calls.get(key), other.calls.get(key))
                for key in self.calls | other.calls
            },
            engines=dict(Counter(self.engines) + Counter(other.engines)),
            refused=dict(Counter(self.refused) + Counter(other.refused)),
            lag=self.lag.plus(other.lag),
            starts=self.starts + other.starts,
            spans_exported=self.spans_exported + other.spans_exported,
            spans_dropped=self.spans_dropped + other.spans_dropped,
            records_dropped=self.records_dropped + other.records_dropped,
            limits_unchecked=self.limits_unchecked + other.limits_unchecked,
        )


def _sum(one: Series | None, other: Series | None) -> Series:
    if one is None or other is None:
        return one or other or Series.empty()
    return one.plus(other)
