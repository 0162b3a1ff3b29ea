"""What the log reads out of a request and its answer: tokens, finish reasons, the prompt's hash."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

Count = Annotated[int, Meta(ge=0, lt=2**31)]
"""As many tokens as a column holds."""


class Choice(Struct):
    """Of one choice."""

    finish_reason: str | None = None


class PromptDetails(Struct):
    """Of the tokens that were read."""

    cached_tokens: Count | None = None


class CompletionDetails(Struct):
    """Of the tokens that were written."""

    reasoning_tokens: Count | None = None


class Usage(Struct):
    """What an answer took."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Answer(Struct):
    """The fields of a ``chat.completion`` body, or of anything like it, that have columns."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Raw = Raw(b"null")  # msgspec takes ``Raw | None`` for None alone

    @property
    def failed(self) -> bool:
        """Whether it tells of an error."""
        return bytes(self.error) != b"null"

    @property
    def finish_reasons(self) -> list[str] | None:
        """Why each choice ended; empty where it was cut."""
        if self.choices is None:
            return None
        return [choice.finish_reason or "" for choice in self.choices]


class _Prompt(Struct):
    messages: Any = None
    tools: Any = None


_answer = msgspec.json.Decoder(Answer)
_fields = msgspec.json.Decoder(dict[str, Raw])
_prompt = msgspec.json.Decoder(_Prompt)
_canonical = msgspec.json.Encoder(order="deterministic")
_NOTHING = Answer()


def read(body: bytes | Raw) -> Answer:
    """What the JSON body of an answer tells; nothing where it is not of the usual shape."""
    try:
        return _answer.decode(body)
    except msgspec.ValidationError:
        return _leniently(body)


def told(answer: Any) -> dict[str, Any]:
    """The columns that an answer fills, itself a ``chat.completion`` body or anything else."""
    body = read(_canonical.encode(answer))
    usage = body.usage or Usage()
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return {
        "response_model": body.model,
        "response_id": body.id,
        "finish_reasons": body.finish_reasons,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_input_tokens": prompt and prompt.cached_tokens,
        "reasoning_output_tokens": completion and completion.reasoning_tokens,
    }


def prompt_hash(request: bytes | Raw | Mapping[str, Any]) -> str | None:
    """Equal messages and tools, equal hash, whatever the sampling settings.

    The same for a request as JSON and as Python objects. None when there are no messages, or
    they hold what JSON cannot: half a surrogate pair, a number beyond a double.
    """
    try:
        if isinstance(request, Mapping):
            prompt = _Prompt(request.get("messages"), request.get("tools"))
        else:
            prompt = _prompt.decode(request)
        prompt.tools = prompt.tools or []
        if prompt.messages is None:
            return None
        return hashlib.sha256(_canonical.encode(prompt)).hexdigest()
    except (ValueError, OverflowError, RecursionError):
        return None


def _leniently(body: bytes | Raw) -> Answer:
    """Field by field: one that is odd does not hide the others."""
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        return _NOTHING
    answer = Answer()
    for field in msgspec.structs.fields(Answer):
        try:
            value = msgspec.json.decode(fields[field.name], type=field.type)
        except (KeyError, msgspec.ValidationError):
            continue
        setattr(answer, field.name, value)
    return answer
