"""What an engine sent: whether it is an answer, and what it took."""

from typing import Annotated

import msgspec

from gateway.log.answer import Usage
from gateway.surface import Surface

_json = msgspec.json.Decoder(msgspec.Raw)


_BAD_GATEWAY = 502


class _Error(msgspec.Struct):
    code: Annotated[int, msgspec.Meta(ge=400, lt=600)]


class _Failure(msgspec.Struct):
    error: _Error


_failure = msgspec.json.Decoder(_Failure)


class NoAnswer(Exception):
    """It is no JSON: the log would not take it either."""


def usage_of(payload: bytes, surface: Surface) -> Usage | None:
    """What a whole answer says it took; None where it does not say. Raises NoAnswer."""
    usage = surface.usage(payload)
    try:
        if not payload.isascii():
            payload.decode()
        if usage is None:  # else it was read to its end
            _json.decode(payload)
    except ValueError as error:
        raise NoAnswer from error
    return usage


def status_of(payload: bytes) -> int:
    """The HTTP status that an error told inside a stream stands for; 502 where it says none."""
    try:
        return _failure.decode(payload).error.code
    except msgspec.DecodeError:
        return _BAD_GATEWAY
