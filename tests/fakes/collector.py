"""The other side of OTLP over HTTP: keeps every span and metric it is sent."""

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """``with Collector() as collector``: listens on ``collector.url``."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, Metric] = {}
        """The newest of each name."""
        self.resources: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, path: str, body: bytes) -> None:
        with self._news:
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(fields(resource.resource.attributes))
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
            elif path == "/v1/metrics":
                for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for held in told.scope_metrics:
                        self.metrics |= {metric.name: metric for metric in held.metrics}
            self._news.notify_all()

    def until_spans(self, count: int, *, timeout_s: float = 20.0) -> list[Span]:
        """The spans, as soon as there are so many."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while len(self.spans) < count:
                if not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{len(self.spans)} spans of {count} came")
            return list(self.spans)


def fields(attributes: Any) -> dict[str, Any]:
    """Attributes as Python values."""
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
