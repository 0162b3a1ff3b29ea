"""Sends spans and metrics to a collector, from a thread of its own.

A collector that is slow or dead costs the calls nothing: what does not fit is dropped, counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from gateway.log.record import Invocation
from gateway.settings import Telemetry as TelemetrySettings
from gateway.telemetry.counters import Counts
from gateway.telemetry.otlp import metrics
from gateway.telemetry.spans import Finished, span
from gateway.telemetry.trace import Trace

BATCH = 512
MAX_WAITING = 4 * BATCH
MAX_WAITING_BYTES = 64 << 20
SPANS_EVERY_S = 1.0
METRICS_EVERY = 15
"""Turns between two exports of the metrics."""
TIMEOUT_S = 5.0
"""How long the collector may take, repeated attempts included."""
FLUSH_S = 2.0
"""How much longer the end may take for what is still to be sent."""

logger = logging.getLogger(__name__)


class Exporter:
    """Takes calls on the event loop's thread, and sends them on its own."""

    def __init__(
        self,
        settings: TelemetrySettings,
        counts: Counts,
        *,
        worker: str,
        urls: Callable[[], Mapping[str, str]],
        now: Callable[[], float],
    ) -> None:
        """``urls`` are the engines' by id; ``now`` is in seconds since 1970."""
        # One line of ours when it begins to fail says what theirs say of every attempt.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        origin = (settings.endpoint or "").rstrip("/")
        self._spans = OTLPSpanExporter(f"{origin}/v1/traces", timeout=TIMEOUT_S)
        self._metrics = OTLPMetricExporter(f"{origin}/v1/metrics", timeout=TIMEOUT_S)
        self._resource = Resource.create(
            {"service.name": "ratchet-gateway", "service.instance.id": worker}
        )
        self._settings, self._counts = settings, counts
        self._urls, self._now = urls, now
        self._waiting: deque[Finished] = deque()
        self._bytes_in = self._bytes_out = 0
        self._wake, self._closing = threading.Event(), False
        self._overflowed = self._known_overflow = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def put(
        self, invocation: Invocation, trace: Trace, *, alias: str, overhead_s: float, attempts: int
    ) -> None:
        """Take a call, or drop it and count that. Never waits."""
        call = Finished(invocation, trace, alias, overhead_s, attempts)
        waiting_bytes = self._bytes_in - self._bytes_out
        if len(self._waiting) >= MAX_WAITING or waiting_bytes > MAX_WAITING_BYTES:
            self._overflowed += 1
            return
        self._bytes_in += call.size
        self._waiting.append(call)
        if len(self._waiting) == BATCH:
            self._wake.set()

    def close(self) -> None:
        """Send what waits, unless the collector takes too long or took no more."""
        self._closing = True
        self._wake.set()
        if not self._failing:
            self._thread.join(FLUSH_S)
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()
        self._thread.join(TIMEOUT_S)  # what still waited is refused now, and counted

    def _run(self) -> None:
        turn = 0
        while not self._closing:
            self._wake.wait(SPANS_EVERY_S)
            self._wake.clear()
            turn += 1
            self._export(with_metrics=turn % METRICS_EVERY == 0)
        self._export(with_metrics=True)

    def _export(self, *, with_metrics: bool) -> None:
        while self._waiting:
            self._send()
        self._count_overflow()
        if with_metrics:
            self._send_metrics()

    def _send(self) -> None:
        calls = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._bytes_out += sum(call.size for call in calls)
        urls = self._urls()
        spans = [one for call in calls if (one := self._span(call, urls)) is not None]
        sent = self._spans.export(spans) is SpanExportResult.SUCCESS
        told = len(spans) if sent else 0
        self._counts.spans_exported += told
        self._counts.spans_dropped += len(calls) - told
        self._told(sent=sent)

    def _span(self, call: Finished, urls: Mapping[str, str]) -> ReadableSpan | None:
        """None of a call whose bodies hold what JSON cannot; it is in the log all the same."""
        try:
            return span(call, self._resource, urls=urls, content=self._settings.content)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            logger.warning("call %s becomes no span: %s", call.invocation.id, error)
            return None

    def _count_overflow(self) -> None:
        """Here, so that one thread alone writes the counter."""
        known, self._known_overflow = self._known_overflow, self._overflowed
        self._counts.spans_dropped += self._known_overflow - known

    def _send_metrics(self) -> None:
        data = metrics(self._counts, self._resource, now=self._now())
        self._told(sent=self._metrics.export(data) is MetricExportResult.SUCCESS)

    def _told(self, *, sent: bool) -> None:
        if not sent and not self._failing:
            logger.warning("no telemetry goes to %s: it does not take it", self._settings.endpoint)
        self._failing = not sent
