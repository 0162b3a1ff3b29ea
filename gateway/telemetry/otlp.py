"""A worker's counters as OpenTelemetry's metrics: the same numbers, by the conventions' names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource

from gateway.telemetry import names
from gateway.telemetry.counters import OVERHEAD, SHADOW, CallKey, Counts, Histogram, Series
from gateway.telemetry.spans import SCOPE

CUMULATIVE = AggregationTemporality.CUMULATIVE
EMBEDDINGS = "embeddings"

_USAGE: Mapping[str, tuple[str, Callable[[Series], float]]] = {
    names.INFERENCE_INPUT_TOKENS: ("{token}", lambda series: series.input_tokens),
    names.INFERENCE_OUTPUT_TOKENS: ("{token}", lambda series: series.output_tokens),
    names.INFERENCE_CACHE_READ_INPUT_TOKENS: ("{token}", lambda series: series.cached_tokens),
    names.INFERENCE_REASONING_OUTPUT_TOKENS: ("{token}", lambda series: series.reasoning_tokens),
    names.COST: ("1", lambda series: series.cost),
}


def metrics(counts: Counts, resource: Resource, *, now: float) -> MetricsData:
    """All counters as of ``now``, in seconds since 1970. Empty ones are left out."""
    span = (int(counts.since * 1e9), int(now * 1e9))
    found = [*_durations(counts, span), *_usage(counts, span)]
    scope = ScopeMetrics(SCOPE, found, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _durations(counts: Counts, span: tuple[int, int]) -> Iterable[Metric]:
    calls = list(counts.calls.items())
    inferences = [(key, series) for key, series in calls if key.operation != EMBEDDINGS]
    embeddings = [(key, series) for key, series in calls if key.operation == EMBEDDINGS]
    standard = names.SECONDS
    for name, bounds, points in (
        (names.INFERENCE_DURATION, standard, [(k, s.duration) for k, s in inferences]),
        (names.OPERATION_DURATION, standard, [(k, s.duration) for k, s in embeddings]),
        (names.INFERENCE_TIME_TO_FIRST_CHUNK, standard, [(k, s.first_chunk) for k, s in calls]),
        (
            names.OVERHEAD_DURATION,
            OVERHEAD,
            [(k, s.overhead) for k, s in calls if k.arm != SHADOW],
        ),
    ):
        data = [_point(key, held, bounds, span) for key, held in points if sum(held.counts)]
        if data:
            yield Metric(name, None, "s", HistogramData(data, CUMULATIVE))


def _usage(counts: Counts, span: tuple[int, int]) -> Iterable[Metric]:
    for name, (unit, of) in _USAGE.items():
        data = [
            NumberDataPoint(_attributes(key), *span, of(series))
            for key, series in list(counts.calls.items())
            if of(series)
        ]
        if data:
            yield Metric(name, None, unit, Sum(data, CUMULATIVE, is_monotonic=True))


def _point(
    key: CallKey, held: Histogram, bounds: tuple[float, ...], span: tuple[int, int]
) -> HistogramDataPoint:
    """With the boundaries that are asked for; ours may go on beyond them."""
    inside = len(bounds)
    buckets = [*held.counts[:inside], sum(held.counts[inside:])]
    unknown = cast("Any", None)  # the smallest and the largest: optional in the protocol
    return HistogramDataPoint(
        _attributes(key), *span, sum(buckets), held.total, buckets, bounds, unknown, unknown
    )


def _attributes(key: CallKey) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        names.OPERATION_NAME: key.operation,
        names.PROVIDER_NAME: key.provider,
        names.REQUEST_MODEL: key.alias,
        names.ARM: key.arm,
        names.HTTP_STATUS: key.status,
    }
    return attributes | ({names.ERROR_TYPE: key.error} if key.error else {})
