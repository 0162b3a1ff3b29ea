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
    """What an answer took: decoded from the ``usage`` of any surface, it says so in chat's words.

    The last group of fields is how responses and messages say it; once decoded they are None.
    ``prompt_tokens`` counts what the engine's cache gave as well.
    """

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: PromptDetails | None = None
    output_tokens_details: CompletionDetails | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None

    def __post_init__(self) -> None:
        if self.input_tokens is None and self.output_tokens is None:
            return
        self.completion_tokens, self.output_tokens = self.output_tokens, None
        self.prompt_tokens, self.input_tokens = self.input_tokens, None
        self.prompt_tokens_details, self.input_tokens_details = self.input_tokens_details, None
        self.completion_tokens_details, self.output_tokens_details = (
            self.output_tokens_details,
            None,
        )
        read, made = self.cache_read_input_tokens, self.cache_creation_input_tokens
        if read is not None or made is not None:
            # Messages count what the cache gave and took apart from the other input.
            self.cache_read_input_tokens = self.cache_creation_input_tokens = None
            if self.prompt_tokens is not None:
                self.prompt_tokens += (read or 0) + (made or 0)
            self.prompt_tokens_details = PromptDetails(read)


class Incomplete(Struct):
    """Why a response is not whole."""

    reason: str | None = None


class Answer(Struct):
    """The fields that have columns, of an answer of any surface, or of anything like it."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Raw = Raw(b"null")  # msgspec takes ``Raw | None`` for None alone
    object: str | None = None
    type: str | None = None
    status: str | None = None
    incomplete_details: Incomplete | None = None
    stop_reason: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it tells of an error."""
        return bytes(self.error) != b"null"

    @property
    def is_message(self) -> bool:
        """Whether it answers Anthropic's Messages: only their bodies have a type of their own."""
        return self.type in ("message", "error")

    @property
    def finish_reasons(self) -> list[str] | None:
        """Why each choice ended, in the words of its surface; empty where it was cut."""
        if self.choices is not None:
            return [choice.finish_reason or "" for choice in self.choices]
        if self.type == "message":
            return [self.stop_reason or ""]
        if self.object == "response":
            why = self.incomplete_details and self.incomplete_details.reason
            return ["" if self.status == "in_progress" else why or self.status or ""]
        return None


class _Embeddings(Struct):
    data: list[dict[str, Raw]]


class _Prompt(Struct):
    messages: Any = None
    tools: Any = None


_answer = msgspec.json.Decoder(Answer)
_fields = msgspec.json.Decoder(dict[str, Raw])
_prompt = msgspec.json.Decoder(_Prompt)
_embeddings = msgspec.json.Decoder(_Embeddings)
_plain = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
_NOTHING = Answer()


def read(body: bytes | Raw) -> Answer:
    """What the JSON body of an answer tells; nothing where it is not of the usual shape."""
    try:
        return _answer.decode(body)
    except msgspec.ValidationError:
        return _leniently(body)


def without_vectors(body: bytes | Raw) -> bytes | Raw:
    """The answer of an embeddings call as the log keeps it: the vectors are most of it, nobody
    learns from them, and the same text gives them again.
    """
    try:
        items = _embeddings.decode(body).data
        fields = _fields.decode(body)
    except msgspec.DecodeError:
        return body
    for item in items:
        item.pop("embedding", None)
    return _plain.encode({**fields, "data": items})


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
