"""What DuckDB says when the disk does not give back what was written."""

import os
import re
from pathlib import Path

import duckdb

_CORRUPT = (
    "Corrupt database file",
    "Corrupt WAL file",
    "does not match stored checksum",
    "Computed AES tag differs",
    "ZSTD Decompression fail",
    "Could not read enough bytes",  # its end is missing
    "Failed to deserialize",
    "Failed to decode LEB128",
)
_WAL = "Failure while replaying WAL"
_NOT_OURS = "not a valid DuckDB database file"
_NO_ROOM = ("No space left", "Disk quota exceeded", "Out of Memory")
_SAID = r"(?:[\w ]+: )*"
"""What comes before DuckDB's own words: what we were doing, and the kind of error."""
_FATAL = rf'{_SAID}(?:FATAL Error: |Checkpoint failed|[Dd]atabase (?:"\w*" )?has been invalidated)'
_GONE = re.compile(_FATAL)
_BEGINS = re.compile(rf"{_FATAL}|{_SAID}(?:{'|'.join((_WAL, *_CORRUPT))})")

_HEADERS = 3 * 4096
_BLOCK = 262_144
"""A DuckDB file is three headers and whole blocks."""


def is_damage(message: str) -> bool:
    """Whether bytes on disk are not what was written; a full disk is not damage."""
    if any(reason in message for reason in _NO_ROOM):
        return False
    return _WAL in message or any(sign in message for sign in _CORRUPT)


def tells_of_damage(message: str) -> bool:
    """The same of a query's error, which may cite what clients said: theirs are no signs.

    DuckDB begins with the sign; only what it calls fatal may wrap another error.
    """
    return is_damage(message) and _BEGINS.match(message) is not None


def is_in_wal(message: str) -> bool:
    """Whether the damage is in the write-ahead file: what was checkpointed is whole."""
    return _WAL in message and "Corrupt database file" not in message


def is_headless(message: str, path: Path) -> bool:
    """Whether a file that DuckDB does not know for its own is one of ours all the same.

    The first bytes of ours may have been lost; somebody else's file is none of our business.
    """
    if _NOT_OURS not in message:
        return False
    size = path.stat().st_size
    with path.open("rb") as file:
        head = os.pread(file.fileno(), 12, 0)
    return size == 0 or head[8:] == b"DUCK" or (size - _HEADERS) % _BLOCK == 0


def gave_up(error: Exception) -> bool:
    """Whether DuckDB refuses everything from now on, until the file is opened anew."""
    return isinstance(error, duckdb.FatalException) or _GONE.match(str(error)) is not None
