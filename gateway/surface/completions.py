"""``POST /v1/completions``: text goes on."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.settings import Capture
from gateway.surface.body import Asked, Parsed, bounded, check_tags, decide
from gateway.surface.core import Surface
from gateway.surface.fields import (
    BOOLEAN,
    DANGEROUS,
    INTEGER,
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    MODEL,
    OF_OPENAI,
    SAMPLING,
    STRING,
    TOP_LOGPROBS,
    Fields,
    Refusal,
)
from gateway.surface.hidden import NOTHING, Hidden, asks_usage

_encoder = msgspec.json.Encoder()


class _Completion(Asked, frozen=True, gc=False, kw_only=True):
    """The fields that decide."""

    prompt: str | list[Any]
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    max_tokens: int | None = None


class Completions(Surface):
    """OpenAI's completions, with vLLM's extras."""

    path = "/v1/completions"
    operation = "text_completion"
    fields = Fields(
        required=("model", "prompt"),
        passed={
            **SAMPLING,
            "model": MODEL,
            "prompt": {
                "anyOf": [{"type": "string"}, {"type": "array"}],
                "description": "Text, token ids, or a list of either.",
            },
            "echo": BOOLEAN,
            "logprobs": TOP_LOGPROBS,
            "max_tokens": INTEGER,
            "suffix": STRING,
        },
        taken=OF_OPENAI,
        refused={
            **DANGEROUS,
            "best_of": Refusal("engines give what they sample; ask for `n`", harmless=(1,)),
        },
    )

    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed:
        asked = decide(values, _Completion)
        n = 1 if asked.n is None else asked.n
        prompts = _prompts(asked.prompt)
        bounded("n", n, 1, MAX_CHOICES)
        bounded("logprobs", asked.logprobs, 0, MAX_TOP_LOGPROBS)
        if n * prompts > MAX_CHOICES:
            raise InvalidRequest(
                f"{prompts} prompts with n={n} ask for more than {MAX_CHOICES} completions.",
                param="prompt",
            )
        if asked.echo and asked.logprobs is not None:
            raise InvalidRequest(
                "echo goes without logprobs: log-probabilities of a prompt stop an engine that "
                "serves adapters.",
                param="echo",
            )
        if asked.metadata:
            check_tags(asked.metadata)
        return Parsed(
            model=asked.model,
            stream=bool(asked.stream),
            n=n * prompts,
            store=asked.store,
            metadata=asked.metadata or {},
            user=asked.safety_identifier or asked.user,
            max_tokens=asked.max_tokens,
            fields=fields,
            prompts=prompts,
        )

    def rewritten(
        self,
        parsed: Parsed,
        *,
        model: str,
        capture: Capture,  # noqa: ARG002 - of chat completions alone
    ) -> tuple[bytes, Hidden]:
        """Of a stream, usage is asked for in every event, so that a cut one is metered too."""
        fields: dict[str, Any] = parsed.fields | {"model": model}
        if not parsed.stream:
            return _encoder.encode(fields), NOTHING
        usage, running = asks_usage(fields)
        hidden = Hidden(usage, running, prompts=parsed.prompts, choices=parsed.n)
        return _encoder.encode(fields), hidden


def _prompts(prompt: str | list[Any]) -> int:
    """How many there are. A list of numbers is one, in tokens."""
    if isinstance(prompt, str) or not prompt or isinstance(prompt[0], int):
        return 1
    return len(prompt)
