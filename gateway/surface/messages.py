"""``POST /v1/messages``: Anthropic's Messages, which vLLM answers through chat completions."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import GatewayError, InvalidRequest
from gateway.surface.body import Parsed, check_switches, check_tags, decide
from gateway.surface.core import Surface
from gateway.surface.envelope import anthropic
from gateway.surface.events import MessageEvents
from gateway.surface.fields import (
    ANY,
    DANGEROUS,
    HOSTED,
    METADATA,
    MODEL,
    NUMBER,
    OBJECT,
    OBJECTS,
    STRING,
    STRINGS,
    TEMPLATE_KWARGS,
    Fields,
    Refusal,
)
from gateway.surface.hidden import Hidden
from gateway.surface.media import check_messages
from gateway.surface.restream import message


class _Message(msgspec.Struct, frozen=True, gc=False):
    """The fields that decide."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    stream: bool | None = None
    metadata: dict[str, str | None] | None = None
    store: bool | None = None


class Messages(Surface):
    """Anthropic's Messages, with vLLM's extras. Errors come in Anthropic's envelope."""

    path = "/v1/messages"
    operation = "chat"
    id_header = b"request-id"
    fields = Fields(
        required=("model", "messages", "max_tokens"),
        passed={
            "model": MODEL,
            "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "max_tokens": {"type": "integer"},
            "stream": {"type": ["boolean", "null"]},
            "system": {"type": ["string", "array", "null"]},
            "temperature": NUMBER,
            "top_k": {"type": ["integer", "null"]},
            "top_p": NUMBER,
            "stop_sequences": STRINGS,
            "thinking": OBJECT,
            "output_config": OBJECT,
            "tools": OBJECTS,
            "tool_choice": OBJECT,
            "watermarking": {"type": ["boolean", "null"]},
            "cache_salt": STRING,
            "chat_template_kwargs": TEMPLATE_KWARGS,
        },
        taken={
            "metadata": {**METADATA, "description": "`user_id`, and tags of the call in the log."},
            "store": {"type": ["boolean", "null"]},
            "service_tier": STRING,
            "inference_geo": STRING,
            "cache_control": OBJECT,
            "context_management": ANY,
        },
        refused={
            **DANGEROUS,
            "container": HOSTED,
            "mcp_servers": Refusal("engines call no tools", harmless=([],)),
        },
    )

    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed:
        asked = decide(values, _Message)
        if not asked.messages:
            raise InvalidRequest("messages must hold at least one message.", param="messages")
        check_messages(asked.messages, "messages")
        told = asked.metadata or {}
        metadata = {name: value for name, value in told.items() if value is not None}
        check_tags(metadata)
        check_switches(values)
        return Parsed(
            model=asked.model,
            stream=bool(asked.stream),
            n=1,
            store=asked.store,
            metadata=metadata,
            user=metadata.get("user_id"),
            max_tokens=asked.max_tokens,
            fields=fields,
        )

    def events(self, hidden: Hidden) -> MessageEvents:  # noqa: ARG002 - nothing is
        """For one stream."""
        return MessageEvents()

    def _streamed(self, answer: dict[str, Any]) -> bytes:
        return message(answer)

    def error(self, error: GatewayError) -> bytes:
        """In Anthropic's envelope."""
        return anthropic(error)

    def error_event(self, error: GatewayError) -> bytes:
        """As Anthropic ends a stream that broke."""
        return b"event: error\ndata: " + anthropic(error) + b"\n\n"
