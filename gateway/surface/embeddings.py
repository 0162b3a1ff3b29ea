"""``POST /v1/embeddings``, where an engine serves a model for it."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.surface.body import Asked, Parsed, check_switches, check_tags, decide
from gateway.surface.core import Surface
from gateway.surface.fields import (
    BOOLEAN,
    DANGEROUS,
    INTEGER,
    MODEL,
    OF_OPENAI,
    STRING,
    TEMPLATE_KWARGS,
    Fields,
)
from gateway.surface.media import check_messages

MAX_INPUTS = 2048
"""OpenAI's limit. Each is a request of its own to the engine."""


class _Embedding(Asked, frozen=True, gc=False, kw_only=True):
    """The fields that decide."""

    input: str | list[Any] | None = None
    messages: list[Any] | None = None
    encoding_format: Literal["float", "base64"] = "float"


class Embeddings(Surface):
    """OpenAI's embeddings, with vLLM's extras."""

    path = "/v1/embeddings"
    operation = "embeddings"
    fields = Fields(
        required=("model",),
        passed={
            "model": MODEL,
            "input": {
                "anyOf": [{"type": "string"}, {"type": "array", "maxItems": MAX_INPUTS}],
                "description": "Text, token ids, or a list of either. Or else `messages`.",
            },
            "messages": {"type": "array", "maxItems": MAX_INPUTS},
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": INTEGER,
            "embed_dtype": STRING,
            "endianness": STRING,
            "use_activation": BOOLEAN,
            "truncate_prompt_tokens": INTEGER,
            "truncation_side": STRING,
            "padding": STRING,
            "add_special_tokens": BOOLEAN,
            "add_generation_prompt": BOOLEAN,
            "continue_final_message": BOOLEAN,
            "chat_template_kwargs": TEMPLATE_KWARGS,
            "cache_salt": STRING,
        },
        taken=OF_OPENAI,
        refused=DANGEROUS,
    )

    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed:
        asked = decide(values, _Embedding)
        if (asked.input is None) == (asked.messages is None):
            raise InvalidRequest("Send either input or messages.", param="input")
        for name in ("input", "messages"):
            given = values.get(name)
            if isinstance(given, list) and len(given) > MAX_INPUTS and not _is_one(given):
                raise InvalidRequest(f"{name} holds more than {MAX_INPUTS} items.", param=name)
            check_messages(given, name)
        if asked.metadata:
            check_tags(asked.metadata)
        check_switches(values)
        return Parsed(
            model=asked.model,
            stream=False,
            n=1,
            store=asked.store,
            metadata=asked.metadata or {},
            user=asked.safety_identifier or asked.user,
            max_tokens=0,
            fields=fields,
        )


def _is_one(items: list[Any]) -> bool:
    """Whether they are the tokens of a single text."""
    return isinstance(items[0], int)
