"""What the gateway reads of a chat request: the fields that decide. The rest passes untouched."""

import json
import re

import msgspec

from gateway.errors import InvalidRequest

MAX_CHOICES = 128


class ChatRequest(msgspec.Struct, frozen=True):
    """The deciding fields of ``POST /v1/chat/completions``."""

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    n: int | None = None
    metadata: dict[str, str] | None = None


_deciding = msgspec.json.Decoder(ChatRequest)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_USAGE = {"include_usage": True}


def parse(body: bytes) -> ChatRequest:
    """Check the deciding fields. Raises InvalidRequest, with the field's name if it is one."""
    try:
        body.decode()
        request = _deciding.decode(body)
        json.loads(body)  # as the log will: what it could not read is refused now
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
    return request


def rewritten(body: bytes, *, model: str, stream: bool) -> tuple[bytes, bool]:
    """The body for the engine, and whether the client itself asked for usage in its stream.

    Only ``model`` changes; of a stream, usage is always asked for, since the log needs it.
    """
    fields = _fields.decode(body)
    fields["model"] = msgspec.Raw(_encoder.encode(model))
    asked = True
    if stream:
        options = msgspec.json.decode(fields.get("stream_options", b"null")) or {}
        if not isinstance(options, dict):
            raise InvalidRequest("stream_options must be an object.", param="stream_options")
        asked = options.get("include_usage") is True
        fields["stream_options"] = msgspec.Raw(_encoder.encode(options | _USAGE))
    return _encoder.encode(fields), asked


def _param(message: str) -> str | None:
    found = re.search(r"`\$\.([^`\[.]+)", message) or re.search(r"field `([^`]+)`", message)
    return found.group(1) if found else None
