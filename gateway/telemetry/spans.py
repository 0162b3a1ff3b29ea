"""From one call to one span of OpenTelemetry's SDK, off the event loop."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.log.answer import told
from gateway.log.assemble import completion
from gateway.log.record import Invocation
from gateway.telemetry import names
from gateway.telemetry.content import inputs, instructions, outputs
from gateway.telemetry.trace import SPAN_BITS, Trace

SCOPE = InstrumentationScope("ratchet.gateway")

_ASKED = {
    "max_tokens": names.REQUEST_MAX_TOKENS,
    "max_completion_tokens": names.REQUEST_MAX_TOKENS,
    "max_output_tokens": names.REQUEST_MAX_TOKENS,
    "temperature": names.REQUEST_TEMPERATURE,
    "top_p": names.REQUEST_TOP_P,
    "seed": names.REQUEST_SEED,
}
_FAILED = 500


class Finished(msgspec.Struct, frozen=True):
    """A call that becomes a span, with what its record does not say."""

    invocation: Invocation
    trace: Trace
    alias: str
    overhead_s: float
    attempts: int

    @property
    def size(self) -> int:
        """Bytes of its bodies."""
        invocation = self.invocation
        answer = len(invocation.sse or "") or memoryview(invocation.response).nbytes
        return memoryview(invocation.request).nbytes + answer


def span(
    call: Finished, resource: Resource, *, urls: Mapping[str, str], content: bool
) -> ReadableSpan:
    """The span of ``call``. ``urls`` are the engines' by id."""
    invocation, trace = call.invocation, call.trace
    start_ns = int(invocation.ts.timestamp() * 1e9)
    failed = bool(invocation.error_type) or (invocation.status or 0) >= _FAILED
    return ReadableSpan(
        name=f"{invocation.operation_name} {call.alias}",
        context=_context(trace.trace_id, invocation.id.int & ((1 << SPAN_BITS) - 1)),
        parent=_context(trace.trace_id, trace.parent_id, remote=True) if trace.parent_id else None,
        resource=resource,
        attributes={
            name: value
            for name, value in _attributes(call, urls, content=content).items()
            if value is not None
        },
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if failed else Status(StatusCode.UNSET),
        start_time=start_ns,
        end_time=start_ns + int((invocation.duration or 0.0) * 1e9),
        instrumentation_scope=SCOPE,
    )


def _context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, remote, TraceFlags(TraceFlags.SAMPLED))


def _attributes(call: Finished, urls: Mapping[str, str], *, content: bool) -> dict[str, Any]:
    invocation = call.invocation
    request, answer = _bodies(invocation)
    return {
        names.OPERATION_NAME: invocation.operation_name,
        names.PROVIDER_NAME: invocation.provider_name,
        names.CONVERSATION_ID: invocation.conversation_id,
        names.REQUEST_MODEL: invocation.request_model,
        names.REQUEST_STREAM: invocation.stream or None,
        names.RESPONSE_TIME_TO_FIRST_CHUNK: invocation.time_to_first_chunk,
        names.ERROR_TYPE: invocation.error_type,
        names.HTTP_STATUS: invocation.status,
        names.INVOCATION: str(invocation.id),
        names.EPISODE: str(invocation.episode_id),
        names.TASK: invocation.task,
        names.ALIAS: call.alias,
        names.ADAPTER: invocation.adapter,
        names.ARM: invocation.arm,
        names.ENGINE: invocation.engine,
        names.ATTEMPTS: call.attempts,
        names.OVERHEAD: call.overhead_s,
        names.COST: invocation.cost,
        **_server(urls.get(invocation.engine or "")),
        **_asked(request),
        **_answered(invocation, answer),
        **(_content(request, answer) if content else {}),
    }


def _bodies(invocation: Invocation) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request and the answer; empty where the client wants none kept, or there is none."""
    request = msgspec.json.decode(invocation.request)
    if invocation.sse is None:
        answer = msgspec.json.decode(invocation.response)
    else:
        answer = completion(invocation.sse)
    return (
        request if isinstance(request, dict) else {},
        answer if isinstance(answer, dict) else {},
    )


def _server(url: str | None) -> dict[str, Any]:
    if url is None:
        return {}
    parts = urlsplit(url)
    return {names.SERVER_ADDRESS: parts.hostname, names.SERVER_PORT: parts.port}


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    """Which sampling the client wants. A field that is no number is not told."""
    asked = {
        name: request[field]
        for field, name in _ASKED.items()
        if isinstance(request.get(field), int | float)
    }
    count = request.get("n")
    return asked | ({names.REQUEST_CHOICE_COUNT: count} if count not in (None, 1) else {})


def _answered(invocation: Invocation, answer: dict[str, Any]) -> dict[str, Any]:
    """What the record says of the answer, else what the answer does."""
    read = told(answer)
    fields = {
        names.RESPONSE_ID: "response_id",
        names.RESPONSE_MODEL: "response_model",
        names.RESPONSE_FINISH_REASONS: "finish_reasons",
        names.USAGE_INPUT_TOKENS: "input_tokens",
        names.USAGE_OUTPUT_TOKENS: "output_tokens",
        names.USAGE_CACHE_READ_INPUT_TOKENS: "cache_read_input_tokens",
        names.USAGE_REASONING_OUTPUT_TOKENS: "reasoning_output_tokens",
    }
    recorded = {field: getattr(invocation, field) for field in fields.values()}
    return {
        name: read.get(field) if recorded[field] is None else recorded[field]
        for name, field in fields.items()
    }


def _content(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    said = {
        names.SYSTEM_INSTRUCTIONS: instructions(request),
        names.INPUT_MESSAGES: inputs(request),
        names.OUTPUT_MESSAGES: outputs(answer),
    }
    return {name: msgspec.json.encode(value).decode() for name, value in said.items() if value}
