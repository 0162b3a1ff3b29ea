"""Whether what an engine sent is an answer."""

import msgspec

_json = msgspec.json.Decoder(msgspec.Raw)


def is_json(payload: bytes) -> bool:
    """Whether the log could take it."""
    try:
        if not payload.isascii():
            payload.decode()
        _json.decode(payload)
    except ValueError:
        return False
    return True
