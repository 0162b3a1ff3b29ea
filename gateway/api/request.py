"""What the gateway reads of a chat request: the fields that decide. The rest passes untouched."""

import json
import math
import re
from collections.abc import Mapping

import msgspec

from gateway.api.hidden import Hidden
from gateway.errors import InvalidRequest
from gateway.settings import Capture

MAX_CHOICES = 128
MAX_TAGS = 16
MAX_TAG_NAME = 64
MAX_TAG = 512


class ChatRequest(msgspec.Struct, frozen=True):
    """The deciding fields of ``POST /v1/chat/completions``."""

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    n: int | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is out of range")
    return number


_everything = json.JSONDecoder(parse_float=_finite)
_deciding = msgspec.json.Decoder(ChatRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_USAGE = {"include_usage": True}
_TRUE = msgspec.Raw(b"true")
_NOT_FOR_ENGINES = ("store", "metadata", "user", "safety_identifier")
"""vLLM takes them and does nothing with them; who the end user is, is none of its business."""


def parse(body: bytes) -> ChatRequest:
    """Check the deciding fields. Raises InvalidRequest, with the field's name if it is one."""
    try:
        text = body.decode()
        request = _deciding.decode(body)
        # As the log will: what it could not read is refused now.
        _everything.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param=_param(str(error))) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    if not request.messages:
        raise InvalidRequest("messages must hold at least one message.", param="messages")
    if request.n is not None and not 1 <= request.n <= MAX_CHOICES:
        raise InvalidRequest(f"n must be from 1 to {MAX_CHOICES}.", param="n")
    if request.metadata:
        _check(request.metadata)
    return request


def rewritten(body: bytes, *, model: str, stream: bool, capture: Capture) -> tuple[bytes, Hidden]:
    """The body for the engine, and what the gateway asks in it that the client did not.

    Of a stream, usage is always asked for, since the log needs it.
    """
    fields = _fields.decode(body)
    fields["model"] = msgspec.Raw(_encoder.encode(model))
    for name in _NOT_FOR_ENGINES:
        fields.pop(name, None)
    token_ids = capture.token_ids and _asks(fields, "return_token_ids")
    # Alone, top_logprobs are the client's mistake, for the engine to refuse.
    mistake = bytes(fields.get("top_logprobs", b"0")) not in {b"0", b"null"}
    logprobs = capture.logprobs and not mistake and _asks(fields, "logprobs")
    usage = stream and _asks_usage(fields)
    return _encoder.encode(fields), Hidden(usage=usage, token_ids=token_ids, logprobs=logprobs)


def _asks(fields: dict[str, msgspec.Raw], name: str) -> bool:
    """Have ``fields`` ask for ``name``; True when they did not before."""
    if bytes(fields.get(name, b"false")) not in {b"false", b"null"}:
        return False
    fields[name] = _TRUE
    return True


def _asks_usage(fields: dict[str, msgspec.Raw]) -> bool:
    options = msgspec.json.decode(fields.get("stream_options", b"null"))
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise InvalidRequest("stream_options must be an object.", param="stream_options")
    fields["stream_options"] = msgspec.Raw(_encoder.encode(options | _USAGE))
    return options.get("include_usage") is not True


def _check(metadata: Mapping[str, str]) -> None:
    """OpenAI's limits, in its words."""
    if len(metadata) > MAX_TAGS:
        raise InvalidRequest(
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_TAGS} "
            f"properties, but got an object with {len(metadata)} properties instead.",
            param="metadata",
        )
    for name, value in metadata.items():
        if len(name) > MAX_TAG_NAME:
            raise InvalidRequest(
                f"Invalid 'metadata': a key is too long. Expected at most {MAX_TAG_NAME} "
                f"characters, but got {len(name)} instead.",
                param="metadata",
            )
        if len(value) > MAX_TAG:
            raise InvalidRequest(
                f"Invalid 'metadata.{name}': string too long. Expected a string with maximum "
                f"length {MAX_TAG}, but got a string with length {len(value)} instead.",
                param=f"metadata.{name}",
            )


def _param(message: str) -> str | None:
    found = re.search(r"`\$\.([^`\[.]+)", message) or re.search(r"field `([^`]+)`", message)
    return found.group(1) if found else None
