"""Reads a request's head to the letter, or not at all.

What RFC 9112 lets two readers understand differently is not understood here: whoever asks must
then give the bytes to a full parser, or refuse them.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

END = b"\r\n\r\n"
MAX_HEAD = 16 << 10
"""Bytes of a head that are looked at."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_SPACE = b" \t"
_NOT_HERE = frozenset(
    {
        b"expect",
        b"http2-settings",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers whose meaning is more than what they say to the endpoint."""
_PERSISTS = {b"": True, b"keep-alive": True, b"close": False}
_MAX_DIGITS = 15
_MAX_NAMES = 1024
_names: dict[bytes, bytes] = {}
"""Header names in the spellings seen so far, and in lower case. Bounded, since clients fill it."""


class Head(NamedTuple):
    """What the head of a request says."""

    path: str
    headers: Mapping[bytes, bytes]
    length: int
    persists: bool
    """Whether the client wants to go on using the connection."""


def request_lines(paths: Collection[str]) -> dict[bytes, str]:
    """The only request lines that are understood, and their paths."""
    return {f"POST {path} HTTP/1.1".encode("ascii"): path for path in paths}


def may_become(data: bytes, lines: Mapping[bytes, str]) -> bool:
    """Whether a head that is not whole yet can still turn out to be one for ``read``."""
    if len(data) > MAX_HEAD or data.count(b"\n") != data.count(b"\r\n"):
        return False
    first, whole, _ = data.partition(b"\r\n")
    if whole:
        return first in lines
    line = first.removesuffix(b"\r")
    return any(known.startswith(line) for known in lines)


def read(data: bytes, end: int, lines: Mapping[bytes, str]) -> Head | None:
    """The head that ends where ``END`` was found; None when it is not understood to the letter."""
    first = data.find(b"\r\n")
    path = lines.get(data[:first])
    if path is None or end > MAX_HEAD:
        return None
    block = data[first + 2 : end]
    fields = block.split(b"\r\n")
    # No control character but the line breaks that were just cut at: no bare CR or LF, no NUL.
    if len(block.translate(None, _CONTROLS)) + 2 * len(fields) != len(block) + 2:
        return None
    headers: dict[bytes, bytes] = {}
    for field in fields:
        name, colon, value = field.partition(b":")
        known = _names.get(name) or _learned(name)
        if known is None or not colon:
            return None
        headers[known] = value.strip(_SPACE)
    length = headers.get(b"content-length", b"")
    persists = _PERSISTS.get(headers.get(b"connection", b"").lower())
    if (
        len(headers) != len(fields)
        or b"host" not in headers
        or not length.isdigit()
        or len(length) > _MAX_DIGITS
        or persists is None
    ):
        return None
    return Head(path, headers, int(length), persists)


def _learned(name: bytes) -> bytes | None:
    """The name in lower case; None when it is no token, or no name for this front."""
    lower = name.lower()
    if lower in _NOT_HERE or not _TOKEN.fullmatch(name):
        return None
    if len(_names) < _MAX_NAMES:
        _names[name] = lower
    return lower
