"""``POST /v1/chat/completions``."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.settings import Capture
from gateway.surface.body import Asked, Parsed, bounded, check_switches, check_tags, decide
from gateway.surface.core import Surface
from gateway.surface.fields import (
    BOOLEAN,
    DANGEROUS,
    INTEGER,
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    MODEL,
    OBJECT,
    OBJECTS,
    OF_OPENAI,
    SAMPLING,
    STRING,
    STRINGS,
    TEMPLATE_KWARGS,
    TOOLS_INSTEAD,
    TOP_LOGPROBS,
    Fields,
    Refusal,
)
from gateway.surface.hidden import Hidden, asks_usage
from gateway.surface.media import check_content

_TRUE = Raw(b"true")
_encoder = msgspec.json.Encoder()


class _Chat(Asked, frozen=True, gc=False, kw_only=True):
    """The fields that decide."""

    messages: list[dict[str, Any]]
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    top_logprobs: int | None = None


class ChatCompletions(Surface):
    """OpenAI's chat completions, with vLLM's extras."""

    path = "/v1/chat/completions"
    operation = "chat"
    fields = Fields(
        required=("model", "messages"),
        passed={
            **SAMPLING,
            "model": MODEL,
            "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "max_tokens": INTEGER,
            "max_completion_tokens": INTEGER,
            "logprobs": BOOLEAN,
            "top_logprobs": TOP_LOGPROBS,
            "tools": OBJECTS,
            "tool_choice": {"type": ["string", "object", "null"]},
            "parallel_tool_calls": BOOLEAN,
            "reasoning_effort": STRING,
            "include_reasoning": BOOLEAN,
            "add_generation_prompt": BOOLEAN,
            "continue_final_message": BOOLEAN,
            "documents": OBJECTS,
            "chat_template_kwargs": TEMPLATE_KWARGS,
            "return_prompt_text": BOOLEAN,
        },
        taken={**OF_OPENAI, "modalities": STRINGS, "prediction": OBJECT, "verbosity": STRING},
        refused={
            **DANGEROUS,
            "echo": Refusal("it asks for the prompt's log-probabilities", harmless=(False,)),
            "functions": TOOLS_INSTEAD,
            "function_call": Refusal("it is OpenAI's old name for `tool_choice`"),
            "audio": Refusal("engines answer in text"),
            "web_search_options": Refusal("engines search nothing"),
        },
    )

    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed:
        asked = decide(values, _Chat)
        if not asked.messages:
            raise InvalidRequest("messages must hold at least one message.", param="messages")
        for message in asked.messages:
            if type(content := message.get("content")) is not str:
                check_content(content, "messages")
        bounded("n", asked.n, 1, MAX_CHOICES)
        bounded("top_logprobs", asked.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if asked.metadata:
            check_tags(asked.metadata)
        if "chat_template_kwargs" in fields:
            check_switches(values)
        most = asked.max_completion_tokens
        return Parsed(
            model=asked.model,
            stream=bool(asked.stream),
            n=1 if asked.n is None else asked.n,
            store=asked.store,
            metadata=asked.metadata or {},
            user=asked.safety_identifier or asked.user,
            max_tokens=asked.max_tokens if most is None else most,
            fields=fields,
        )

    def rewritten(self, parsed: Parsed, *, model: str, capture: Capture) -> tuple[bytes, Hidden]:
        """Of a stream, usage is asked for in every event, so that a cut one is metered too."""
        fields: dict[str, Any] = parsed.fields | {"model": model}
        token_ids = capture.token_ids and _asks(fields, "return_token_ids")
        # Alone, top_logprobs are the client's mistake, for the engine to refuse.
        mistake = capture.logprobs and _raw(fields, "top_logprobs") not in {b"0", b"null"}
        logprobs = capture.logprobs and not mistake and _asks(fields, "logprobs")
        if not parsed.stream:
            return _encoder.encode(fields), Hidden(token_ids=token_ids, logprobs=logprobs)
        usage, running = asks_usage(fields)
        hidden = Hidden(usage, running, token_ids, logprobs, parsed.prompts, parsed.n)
        return _encoder.encode(fields), hidden


def _asks(fields: dict[str, Any], name: str) -> bool:
    """Have ``fields`` ask for ``name``; True when they did not before."""
    if _raw(fields, name, b"false") not in {b"false", b"null"}:
        return False
    fields[name] = _TRUE
    return True


def _raw(fields: Mapping[str, Any], name: str, otherwise: bytes = b"0") -> bytes:
    return bytes(fields.get(name, otherwise))
