"""``POST /v1/responses``: OpenAI's Responses, without what a hosted service keeps between calls."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import GatewayError
from gateway.settings import Capture
from gateway.surface.body import Asked, Parsed, bounded, check_switches, check_tags, decide
from gateway.surface.core import Surface
from gateway.surface.events import ResponseEvents
from gateway.surface.fields import (
    ANY,
    BOOLEAN,
    DANGEROUS,
    HOSTED,
    INTEGER,
    MAX_TOP_LOGPROBS,
    METADATA,
    MODEL,
    OBJECT,
    OBJECTS,
    OF_OPENAI,
    SAMPLING,
    STRING,
    STRINGS,
    TEMPLATE_KWARGS,
    TOP_LOGPROBS,
    Fields,
    Refusal,
)
from gateway.surface.hidden import NOTHING, Hidden
from gateway.surface.media import check_messages
from gateway.surface.restream import response

_FALSE = Raw(b"false")
_encoder = msgspec.json.Encoder()
_ECHOED = ("metadata", "service_tier", "prompt_cache_key")
_SAMPLED = (
    "cache_salt",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "stream",
    "structured_outputs",
    "temperature",
    "top_k",
    "top_p",
    "watermarking",
)


class _Response(Asked, frozen=True, gc=False, kw_only=True):
    """The fields that decide."""

    input: str | list[Any]
    max_output_tokens: int | None = None
    top_logprobs: int | None = None


class Responses(Surface):
    """OpenAI's Responses, with vLLM's extras. Each call is whole in itself."""

    path = "/v1/responses"
    operation = "chat"
    fields = Fields(
        required=("model", "input"),
        passed={
            **{name: SAMPLING[name] for name in _SAMPLED},
            "model": MODEL,
            "input": {"type": ["string", "array"]},
            "instructions": STRING,
            "include": STRINGS,
            "include_reasoning": BOOLEAN,
            "max_output_tokens": INTEGER,
            "max_tool_calls": INTEGER,
            "metadata": METADATA,
            "parallel_tool_calls": BOOLEAN,
            "prompt_cache_key": STRING,
            "reasoning": OBJECT,
            "service_tier": STRING,
            "text": OBJECT,
            "tool_choice": {"type": ["string", "object", "null"]},
            "tools": OBJECTS,
            "top_logprobs": TOP_LOGPROBS,
            "truncation": STRING,
            "enable_response_messages": BOOLEAN,
            "previous_input_messages": OBJECTS,
            "chat_template_kwargs": TEMPLATE_KWARGS,
        },
        taken={
            **{name: of for name, of in OF_OPENAI.items() if name not in _ECHOED},
            "stream_options": OBJECT,
            "context_management": ANY,
        },
        refused={
            **DANGEROUS,
            "background": Refusal("engines keep no answers", harmless=(False,)),
            "conversation": HOSTED,
            "previous_response_id": HOSTED,
            "prompt": Refusal("engines know no templates of prompts"),
        },
    )

    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed:
        asked = decide(values, _Response)
        check_messages(asked.input, "input")
        bounded("top_logprobs", asked.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if asked.metadata:
            check_tags(asked.metadata)
        check_switches(values)
        return Parsed(
            model=asked.model,
            stream=bool(asked.stream),
            n=1,
            store=asked.store,
            metadata=asked.metadata or {},
            user=asked.safety_identifier or asked.user,
            max_tokens=asked.max_output_tokens,
            fields=fields,
        )

    def rewritten(
        self,
        parsed: Parsed,
        *,
        model: str,
        capture: Capture,  # noqa: ARG002 - of chat completions alone
    ) -> tuple[bytes, Hidden]:
        """An engine is never to keep an answer: it would do so in its memory, for everybody."""
        fields: dict[str, Any] = parsed.fields | {"model": model, "store": _FALSE}
        return _encoder.encode(fields), NOTHING

    def events(self, hidden: Hidden) -> ResponseEvents:  # noqa: ARG002 - nothing is
        """For one stream."""
        return ResponseEvents()

    def _streamed(self, answer: dict[str, Any]) -> bytes:
        return response(answer)

    def error_event(self, error: GatewayError) -> bytes:
        """As OpenAI's ``error`` event; its number in the sequence is not known here."""
        said = {"code": error.code, "message": error.message, "param": error.param}
        event = {"type": "error", **said, "sequence_number": 0}
        return b"event: error\ndata: " + _encoder.encode(event) + b"\n\n"
