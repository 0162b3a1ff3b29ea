"""What was erased leaves the spool's files as well, without moving what stays.

Offsets into segments are in the log, so an erased line becomes spaces of the same length, and
one that only loses its bodies is padded with white space inside its JSON.
"""

import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.log import quarantine
from gateway.log.answer import prompt_hash, told
from gateway.log.assemble import completion
from gateway.log.cipher import Cipher, is_sealed
from gateway.log.done import Kept, kept
from gateway.log.erasure import Erased
from gateway.log.record import Edit, Feedback, Invocation, decode, encode
from gateway.log.segment import SUFFIX

logger = logging.getLogger(__name__)

_NAME = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def blank(spool: Path, erased: Erased, cipher: Cipher | None) -> int:
    """Overwrite what was erased in live segments, kept ones and the quarantine; how many lines.

    Raises OSError when something stays for want of room, say; it can be repeated.
    Nobody may ingest meanwhile; writers may append. Lines that are too damaged to name whom
    they are about, or sealed with a lost key, stay for as long as their file is kept.
    """
    lines = Lines(erased, cipher)
    for segment in spool.glob(f"*{SUFFIX}"):
        _overwrite(segment, lines)
    for one in kept(spool):
        _rewrite(one, lines)
    for file in (spool / quarantine.FOLDER).glob("*"):
        _clear(file, lines)
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
            if isinstance(record, Invocation | Feedback | Edit) and self._erased.covers(record):
                return _spaces(line)
            if isinstance(record, Invocation) and self._erased.strips(record):
                return _bare(line, record, self._cipher)
        except (ValueError, RecursionError):  # it is in quarantine, too
            return _spaces(line) if self.mentions(line) else line
        return line


def _bare(line: bytes, record: Invocation, cipher: Cipher | None) -> bytes:
    """The line without bodies, but with what the log reads out of them, if there is room for it.

    White space after ``null`` gives it its old length.
    """
    bodies = replace(
        record,
        request=_NULL,
        response=_NULL,
        sse=None,
        verdicts=record.verdicts and [replace(one, reason=None) for one in record.verdicts],
        stored=False,
        train_ok=False,
    )
    if bodies == replace(record, request=msgspec.Raw(bytes(record.request).rstrip())):
        return line
    cipher = cipher if is_sealed(line) else None
    for bare in (replace(bodies, **_read_out(record)), bodies):
        missing = len(line) - len(encode(replace(bare, request=_padded(1)), cipher))
        if missing >= 0:
            # Three bytes are four in a sealed line's base64.
            padding = missing if cipher is None else missing // 4 * 3
            return encode(replace(bare, request=_padded(1 + padding)), cipher)
    return _spaces(line)


def _read_out(record: Invocation) -> dict[str, Any]:
    body = msgspec.json.decode(record.response) if record.sse is None else completion(record.sse)
    found = told(body) | {"prompt_hash": prompt_hash(record.request)}
    return {name: value for name, value in found.items() if getattr(record, name) is None}


def _spaces(line: bytes) -> bytes:
    return b" " * (len(line) - 1) + b"\n"


def _padded(n: int) -> msgspec.Raw:
    return msgspec.Raw(b"null" + b" " * n)


_NULL = msgspec.Raw(b"null")


def _overwrite(segment: Path, lines: Lines) -> None:
    """In place: its writer holds the file open, and only ever adds to its end."""
    with segment.open("r+b") as file:
        start = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # it is still being written: what is read next would be its other half
            if (left := lines.left(line)) != line:
                os.pwrite(file.fileno(), left, start)
            start += len(line)
        os.fsync(file.fileno())


def _rewrite(one: Kept, lines: Lines) -> None:
    before = lines.changed
    try:
        with one.open() as file:
            content = file.read()
    except OSError:
        logger.exception("%s cannot be read; it goes when its day is over", one.path)
        return
    left = b"".join(map(lines.left, _split(content)))
    if lines.changed > before:
        one.rewrite(left)


def _clear(file: Path, lines: Lines) -> None:
    """Cut out the lines that mention somebody who was erased; no offset counts these."""
    content = file.read_bytes()
    unnamed = [line for line in _split(content) if not lines.mentions(line)]
    left = b"".join(one for line in unnamed if not (one := lines.left(line)).isspace())
    if left == content:
        return
    lines.changed += content.count(b"\n") - len(unnamed)
    age = file.stat()
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as target:
        target.write(left)
        target.flush()
        os.fsync(target.fileno())
    os.utime(partial, ns=(age.st_atime_ns, age.st_mtime_ns))
    partial.replace(file)


def _split(content: bytes) -> list[bytes]:
    """Lines with their ends. A carriage return ends none: a damaged line may hold one."""
    return io.BytesIO(content).readlines()
