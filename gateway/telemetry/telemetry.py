"""The end of every call: counted in about two microseconds, and exported elsewhere."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Protocol, TypeVar
from uuid import UUID

from gateway.log.record import Invocation
from gateway.telemetry.counters import (
    DURATION,
    MAX_SERIES,
    OTHER,
    OVERHEAD,
    CallKey,
    Counts,
    Series,
)
from gateway.telemetry.trace import UNTRACED, Trace, continued, passed_on

_Key = TypeVar("_Key")


class Spans(Protocol):
    """Where calls go that become spans."""

    def put(
        self, invocation: Invocation, trace: Trace, *, alias: str, overhead_s: float, attempts: int
    ) -> None:
        """Take a call, or drop it and count that. Never waits."""


class Telemetry:
    """What one worker tells of its calls. Called on the event loop's thread."""

    def __init__(self, counts: Counts, *, spans: Spans | None = None, sample: float = 1.0) -> None:
        self.counts = counts
        self._calls = counts.calls
        self._engines = counts.engines
        self._spans = spans
        self._sample = sample

    def trace(self, headers: Mapping[bytes, bytes], invocation_id: UUID) -> Trace:
        """Where a call stands in its client's trace; ``.headers`` go to the engine.

        When nothing is exported these are the client's own.
        """
        if self._spans is None:
            return passed_on(headers)
        return continued(headers, invocation_id, sample=self._sample)

    def finished(
        self,
        invocation: Invocation,
        *,
        alias: str,
        overhead_s: float,
        attempts: int,
        trace: Trace = UNTRACED,
    ) -> None:
        """Count a call that has a record, shadows too.

        ``alias`` is the plan's, never the client's word: it must be of a closed set.
        """
        status = invocation.status or 0
        key = (
            alias,
            invocation.arm or "",
            invocation.operation_name,
            invocation.provider_name,
            status,
            invocation.error_type or "",
        )
        series = self._calls.get(key)  # type: ignore[call-overload]  # equal to its CallKey
        if series is None:
            series = self.counts.begun(CallKey(*key))
        _add(series, invocation, overhead_s=overhead_s, attempts=attempts)
        if invocation.engine is not None:
            _increment(self._engines, (invocation.engine, status), (OTHER, status))
        if trace.exported and self._spans is not None:
            self._spans.put(
                invocation, trace, alias=alias, overhead_s=overhead_s, attempts=attempts
            )

    def refused(self, status: int, code: str | None) -> None:
        """Count a request that became no call: no key, no such model, over a limit, overloaded."""
        code = code or ""
        _increment(self.counts.refused, (status, code), (status, OTHER))

    def lagged(self, late_s: float) -> None:
        """Count how much later than asked the event loop has called back."""
        lag = self.counts.lag
        lag.counts[bisect_left(OVERHEAD, late_s)] += 1
        lag.total += late_s


def _add(series: Series, invocation: Invocation, *, overhead_s: float, attempts: int) -> None:
    series.calls += 1
    series.retries += attempts - 1
    duration_s = invocation.duration or 0.0
    histogram = series.duration
    histogram.counts[bisect_left(DURATION, duration_s)] += 1
    histogram.total += duration_s
    histogram = series.overhead
    histogram.counts[bisect_left(OVERHEAD, overhead_s)] += 1
    histogram.total += overhead_s
    first_s = invocation.time_to_first_chunk
    if first_s is not None:
        histogram = series.first_chunk
        histogram.counts[bisect_left(DURATION, first_s)] += 1
        histogram.total += first_s
    series.input_tokens += invocation.input_tokens or 0
    series.output_tokens += invocation.output_tokens or 0
    series.cached_tokens += invocation.cache_read_input_tokens or 0
    series.reasoning_tokens += invocation.reasoning_output_tokens or 0
    series.cost += invocation.cost or 0.0


def _increment(counts: dict[_Key, int], key: _Key, otherwise: _Key) -> None:
    """Count ``otherwise`` where ``key`` would be a label too many."""
    if key not in counts and len(counts) >= MAX_SERIES:
        key = otherwise
    counts[key] = counts.get(key, 0) + 1
