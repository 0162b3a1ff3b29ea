"""Reads the spool: the lines of a segment, each with its place, whole ones and damaged ones."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from gateway.errors import StoreError
from gateway.log.cipher import KEY, Cipher
from gateway.log.done import Kept
from gateway.log.record import Record, decode
from gateway.log.segment import sealed

READ_BYTES = 4 << 20
"""Read of one segment at once, unless a single line is longer."""
LINE_BYTES = 256 << 20
"""No line is longer: what is, is damage, and is set aside piece by piece."""

_SEALED = re.compile(rb"~[A-Za-z0-9+/]+={0,2}")


class Line(NamedTuple):
    """A piece of a segment. A blank line has neither record nor ``why``: it was erased."""

    segment: str
    at: int
    end: int
    """The offset behind it: once it is dealt with, the segment is ingested up to here."""
    raw: bytes
    record: Record | None = None
    why: str | None = None
    """Why it could not be taken."""


@dataclass(frozen=True, slots=True)
class Source:
    """A segment, in the spool or kept."""

    segment: str
    place: Path | Kept

    def read(self, start: int, cipher: Cipher | None) -> tuple[list[Line], bool]:
        """The lines from ``start``, some READ_BYTES of them; and whether none will ever follow.

        What the writer of a sealed segment left without a line break comes as damaged. Raises
        OSError, StoreError when a key is needed and there is none.
        """
        if isinstance(self.place, Kept):
            return self._kept(self.place, start, cipher)
        # Asked before reading: whatever a dead writer left is then seen below.
        is_sealed = sealed(self.place)
        with self.place.open("rb") as file:
            if is_sealed and file.seek(0, os.SEEK_END) < start:
                short = "it is shorter than what was ingested of it: its end is missing"
                return [Line(self.segment, start, start, b"", why=short)], True
            file.seek(start)
            data, at_end = _some(file)
        return self._lines(data, start, cipher, is_last=is_sealed and at_end)

    def _kept(self, place: Kept, start: int, cipher: Cipher | None) -> tuple[list[Line], bool]:
        try:
            with place.open() as file:
                for skipped in range(0, start, READ_BYTES):
                    file.read(min(READ_BYTES, start - skipped))
                data, at_end = _some(file)
        except OSError as error:
            why = f"the kept segment cannot be read from here on: {error}"
            return [Line(self.segment, start, place.size, b"", why=why)], True
        return self._lines(data, start, cipher, is_last=at_end)

    def _lines(
        self, data: bytes, start: int, cipher: Cipher | None, *, is_last: bool
    ) -> tuple[list[Line], bool]:
        whole = data.rfind(b"\n") + 1
        lines, at = [], start
        for raw in data[: whole - 1].split(b"\n") if whole else ():
            end = at + len(raw) + 1
            lines.append(self._line(raw, at, end, cipher))
            at = end
        rest = data[whole:]
        if rest and is_last:
            torn = "its end is missing: the writer died, and had not acknowledged it"
            lines.append(Line(self.segment, at, at + len(rest), rest, why=torn))
        elif not whole and len(rest) >= LINE_BYTES:
            long = f"no line is longer than {LINE_BYTES} bytes"
            lines.append(Line(self.segment, at, at + len(rest), rest, why=long))
        return lines, is_last

    def _line(self, raw: bytes, at: int, end: int, cipher: Cipher | None) -> Line:
        try:
            return Line(self.segment, at, end, raw, decode(raw, cipher))
        except (ValueError, RecursionError) as error:
            if not raw.strip():
                return Line(self.segment, at, end, raw)
            if cipher is None and _SEALED.fullmatch(raw):
                raise StoreError(f"the spool is encrypted and there is no key; set {KEY}") from None
            return Line(self.segment, at, end, raw, why=str(error))


def _some(file: IO[bytes]) -> tuple[bytes, bool]:
    """At least one whole line, if there is one; and whether the file ends here."""
    pieces, size = [], 0
    while size < LINE_BYTES:
        piece = file.read(READ_BYTES)
        pieces.append(piece)
        size += len(piece)
        if len(piece) < READ_BYTES:
            return b"".join(pieces), True
        if b"\n" in piece:
            break
    return b"".join(pieces), False
