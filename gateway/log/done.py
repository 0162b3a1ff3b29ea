"""Segments that are in the log already, kept for a while, compressed, in the spool's ``done``.

Should the log lose its write-ahead file, or itself, they hold what it held.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from gateway.log.segment import sync_directory

FOLDER = "done"
_SUFFIX = ".zst"
_PARTIAL = ".tmp"


@dataclass(frozen=True, slots=True)
class Kept:
    """One of them; its name, ``<segment>.<size>.zst``, tells its size before compression."""

    path: Path
    segment: str
    size: int

    def open(self) -> IO[bytes]:
        """What it holds; a reader that goes forward only. Raises OSError, also for damage."""
        return cast("IO[bytes]", pa.input_stream(self.path, compression="zstd"))

    def rewrite(self, content: bytes) -> None:
        """Put ``content`` of the same size in its place. Raises OSError; then it is as it was."""
        partial = self.path.with_suffix(_PARTIAL)
        with pa.output_stream(partial, compression="zstd") as target:
            target.write(content)
        os.utime(partial, ns=(self.path.stat().st_atime_ns, self.path.stat().st_mtime_ns))
        _replace(partial, self.path)


def kept(spool: Path) -> Iterator[Kept]:
    """Every segment kept; the order is by name."""
    for path in sorted((spool / FOLDER).glob(f"*{_SUFFIX}")):
        segment, _, size = path.name.removesuffix(_SUFFIX).rpartition(".")
        if segment and size.isdecimal():
            yield Kept(path, segment, int(size))


def keep(segment: Path) -> None:
    """Move a segment that is wholly in the log. Safe to repeat. Raises OSError."""
    size = segment.stat().st_size
    if size:
        path = segment.parent / FOLDER / f"{segment.name}.{size}{_SUFFIX}"
        partial = path.with_suffix(_PARTIAL)
        with segment.open("rb") as source, pa.output_stream(partial, compression="zstd") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _replace(partial, path)
    segment.unlink()


def _replace(partial: Path, path: Path) -> None:
    """Only what is on the device may take the place of what was."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)
