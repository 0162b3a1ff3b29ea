"""Spans and metrics as a collector receives them, over OTLP."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest

from gateway.log.record import new_id
from gateway.settings import Telemetry as Options
from gateway.telemetry import Telemetry
from gateway.telemetry import export as exporting
from gateway.telemetry.counters import Counts
from gateway.telemetry.export import Exporter
from tests.factories import NOW, invocation
from tests.fakes.collector import Collector, fields
from tests.integration.conftest import free_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SENT = {b"traceparent": f"00-{TRACE}-{PARENT}-01".encode()}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@contextmanager
def exporting_to(url: str, *, content: bool = False) -> Iterator[Telemetry]:
    """Telemetry that is flushed and closed at the end."""
    counts = Counts(since=1000.0)
    exporter = Exporter(
        Options(endpoint=url, content=content),
        counts,
        worker="w0",
        urls=lambda: {"e0": "http://10.0.0.1:8001"},
        now=lambda: 2000.0,
    )
    yield Telemetry(counts, spans=exporter)
    exporter.close()


def finish(telemetry: Telemetry, headers: Mapping[bytes, bytes] = SENT, **changes: Any) -> UUID:
    usual = {"engine": "e0", "arm": "incumbent", "duration": 1.5, "id": new_id()}
    call = invocation(**(usual | changes))
    trace = telemetry.trace(headers, call.id)
    telemetry.finished(call, alias="helpdesk", overhead_s=0.0004, attempts=2, trace=trace)
    return call.id


def test_a_call_becomes_a_span_in_its_clients_trace(collector: Collector) -> None:
    with exporting_to(collector.url) as telemetry:
        call_id = finish(telemetry, input_tokens=7, conversation_id="c1", adapter="helpdesk--1")

    (span,) = collector.spans
    attributes = fields(span.attributes)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.span_id.hex() == call_id.hex[16:]
    assert span.name == "chat helpdesk"
    assert span.start_time_unix_nano == NOW.timestamp() * 1e9
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1.5e9
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "vllm"
    assert attributes["gen_ai.request.model"] == "helpdesk"
    assert attributes["gen_ai.conversation.id"] == "c1"
    assert attributes["gen_ai.usage.input_tokens"] == 7
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (attributes["server.address"], attributes["server.port"]) == ("10.0.0.1", 8001)
    assert (attributes["ratchet.adapter"], attributes["ratchet.attempts"]) == ("helpdesk--1", 2)
    assert collector.resources[0]["service.name"] == "ratchet-gateway"
    assert collector.resources[0]["service.instance.id"] == "w0"


def test_a_call_without_a_trace_is_the_root_of_one(collector: Collector) -> None:
    with exporting_to(collector.url) as telemetry:
        call_id = finish(telemetry, {})

    (span,) = collector.spans
    assert span.trace_id.hex() == call_id.hex
    assert span.parent_span_id == b""


def test_a_failed_call_is_an_error_of_its_type(collector: Collector) -> None:
    with exporting_to(collector.url) as telemetry:
        finish(telemetry, status=503, error_type="engine_unavailable")

    (span,) = collector.spans
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert fields(span.attributes)["error.type"] == "engine_unavailable"


def test_what_was_said_stays_here_unless_configured(collector: Collector) -> None:
    with exporting_to(collector.url) as telemetry:
        finish(telemetry)

    (span,) = collector.spans
    assert b"question" not in span.SerializeToString()
    assert b"messages" not in span.SerializeToString()


def test_what_was_said_goes_along_when_configured(collector: Collector) -> None:
    request = {"messages": [{"role": "user", "content": "Why?"}], "temperature": 0.5}
    with exporting_to(collector.url, content=True) as telemetry:
        finish(telemetry, request=msgspec.Raw(json.dumps(request).encode()))

    attributes = fields(collector.spans[0].attributes)
    said = [{"type": "text", "content": "Why?"}]
    answered = [{"type": "text", "content": "hi"}]
    assert json.loads(attributes["gen_ai.input.messages"]) == [{"role": "user", "parts": said}]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": answered, "finish_reason": "stop"}
    ]
    assert attributes["gen_ai.request.temperature"] == 0.5


def test_a_client_that_wants_nothing_kept_is_not_quoted_either(collector: Collector) -> None:
    nothing = msgspec.Raw(b"null")
    with exporting_to(collector.url, content=True) as telemetry:
        finish(telemetry, request=nothing, response=nothing, finish_reasons=["length"])

    attributes = fields(collector.spans[0].attributes)
    assert attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert not [name for name in attributes if name.endswith("messages")]


def test_a_streamed_answer_is_read_as_a_whole(collector: Collector) -> None:
    chunks = (
        b'data: {"object":"chat.completion.chunk","choices":[{"index":0,'
        b'"delta":{"content":"Hel"},"finish_reason":null}]}\n\n'
        b'data: {"object":"chat.completion.chunk","choices":[{"index":0,'
        b'"delta":{"content":"lo"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
    )
    with exporting_to(collector.url, content=True) as telemetry:
        finish(
            telemetry,
            stream=True,
            response=msgspec.Raw(b"null"),
            sse=chunks.decode(),
            time_to_first_chunk=0.25,
        )

    attributes = fields(collector.spans[0].attributes)
    assert attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] == 0.25
    assert "Hello" in attributes["gen_ai.output.messages"]


def test_a_call_whose_bodies_are_no_json_is_dropped_and_the_next_is_not(
    collector: Collector,
) -> None:
    with exporting_to(collector.url) as telemetry:
        finish(telemetry, request=msgspec.Raw(b"{nonsense"))
        call_id = finish(telemetry)

    assert [span.span_id.hex() for span in collector.spans] == [call_id.hex[16:]]
    assert (telemetry.counts.spans_exported, telemetry.counts.spans_dropped) == (1, 1)


def test_metrics_have_the_conventions_names_and_buckets(collector: Collector) -> None:
    with exporting_to(collector.url) as telemetry:
        finish(telemetry, input_tokens=7, output_tokens=3, time_to_first_chunk=0.3)
        finish(telemetry, input_tokens=8, output_tokens=1, duration=200.0)
        finish(telemetry, operation_name="embeddings", input_tokens=5)

    (duration,) = collector.metrics["gen_ai.client.inference.duration"].histogram.data_points
    (embedding,) = collector.metrics["gen_ai.client.operation.duration"].histogram.data_points
    tokens = collector.metrics["gen_ai.client.inference.usage.input_tokens"].sum
    assert duration.count == sum(duration.bucket_counts) == 2
    assert duration.explicit_bounds[0] == 0.01
    assert duration.explicit_bounds[-1] == 81.92
    assert duration.bucket_counts[-1] == 1
    assert duration.sum == 201.5
    assert not duration.HasField("max")
    assert duration.start_time_unix_nano == 1000 * 10**9
    assert fields(duration.attributes)["gen_ai.request.model"] == "helpdesk"
    assert fields(embedding.attributes)["gen_ai.operation.name"] == "embeddings"
    assert tokens.is_monotonic
    assert {point.as_int or point.as_double for point in tokens.data_points} == {15, 5}
    assert "ratchet.overhead.duration" in collector.metrics


def test_a_dead_collector_costs_calls_nothing_but_a_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "TIMEOUT_S", 0.2)
    with exporting_to(f"http://127.0.0.1:{free_port()}") as telemetry:
        for _ in range(3 * exporting.MAX_WAITING):
            finish(telemetry)

    counts = telemetry.counts
    assert sum(series.calls for series in counts.calls.values()) == 3 * exporting.MAX_WAITING
    assert counts.spans_exported == 0
    assert counts.spans_dropped == 3 * exporting.MAX_WAITING


def test_bodies_that_wait_take_a_bounded_amount_of_memory(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MAX_WAITING_BYTES", 1000)
    large = msgspec.Raw(json.dumps("x" * 2000).encode())
    with exporting_to(collector.url) as telemetry:
        for _ in range(500):
            finish(telemetry, request=large)

    counts = telemetry.counts
    assert 1 <= len(collector.spans) == counts.spans_exported
    assert 1 <= counts.spans_dropped == 500 - counts.spans_exported
