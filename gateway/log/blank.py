"""What was erased leaves the spool's files as well, without moving what stays.

Offsets into segments are in the log, so an erased line becomes spaces of the same length, and
one that only loses its bodies is padded with white space inside its JSON.
"""

import os
import re
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gateway.log.cipher import Cipher, is_sealed
from gateway.log.erasure import Erased
from gateway.log.record import Edit, Feedback, Invocation, decode, encode
from gateway.log.segment import SUFFIX

_NAME = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def blank(spool: Path, erased: Erased, cipher: Cipher | None) -> int:
    """Overwrite what was erased in live segments, kept ones and the quarantine; how many lines.

    Nobody may ingest meanwhile; writers may append. Lines that are sealed with a lost key, or too
    damaged to name whom they are about, stay until their time in quarantine is over.
    """
    lines = Lines(erased, cipher)
    for segment in spool.glob(f"*{SUFFIX}"):
        _overwrite(segment, lines)
    return lines.changed


class Lines:
    """Turns lines into what may be left of them, and counts those it changed."""

    def __init__(self, erased: Erased, cipher: Cipher | None) -> None:
        self._erased = erased
        self._cipher = cipher
        self._names = frozenset(name.encode() for name in erased.names())
        self.changed = 0

    def left(self, line: bytes) -> bytes:
        """The same number of bytes: the line, its row without bodies, or spaces."""
        left = self._left(line)
        self.changed += left != line
        return left

    def mentions(self, line: bytes) -> bool:
        """Whether a damaged line names somebody, or a call, that was erased."""
        return not self._names.isdisjoint(_NAME.findall(line))

    def _left(self, line: bytes) -> bytes:
        if line.isspace():
            return line
        try:
            record = decode(line.rstrip(b"\n"), self._cipher)
        except ValueError:
            return _spaces(line) if self.mentions(line) else line
        if isinstance(record, Invocation | Feedback | Edit) and self._erased.covers(record):
            return _spaces(line)
        if isinstance(record, Invocation) and self._erased.strips(record):
            return _bare(line, record, self._cipher)
        return line


def _bare(line: bytes, record: Invocation, cipher: Cipher | None) -> bytes:
    """The line without bodies. White space after ``null`` gives it its old length."""
    bare = replace(record, response=_NULL, sse=None, stored=False, train_ok=False)
    cipher = cipher if is_sealed(line) else None
    short = encode(replace(bare, request=_padded(1)), cipher)
    missing = len(line) - len(short)
    if missing < 0:
        return _spaces(line)
    # Three bytes are four in a sealed line's base64.
    padding = missing if cipher is None else missing // 4 * 3
    return encode(replace(bare, request=_padded(1 + padding)), cipher)


def _spaces(line: bytes) -> bytes:
    return b" " * (len(line) - 1) + b"\n"


def _padded(n: int) -> msgspec.Raw:
    return msgspec.Raw(b"null" + b" " * n)


_NULL = msgspec.Raw(b"null")


def _overwrite(segment: Path, lines: Lines) -> None:
    """In place: its writer holds the file open."""
    with segment.open("r+b") as file:
        start = 0
        for line in file.read().splitlines(keepends=True):
            if line.endswith(b"\n") and (left := lines.left(line)) != line:
                os.pwrite(file.fileno(), left, start)
            start += len(line)
        os.fsync(file.fileno())
