"""What an engine sent: whether it is an answer, and what it took."""

import msgspec

from gateway.log.answer import Usage
from gateway.surface import Surface

_json = msgspec.json.Decoder(msgspec.Raw)


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
