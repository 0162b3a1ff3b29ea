"""Segments that are in the log already, kept for a while, compressed, in the spool's ``done``.

Should the log lose its write-ahead file, or itself, they hold what it held.
"""

import io
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
        _write(io.BytesIO(content), self.path, age=self.path.stat())
        sync_directory(self.path.parent)


def kept(spool: Path) -> Iterator[Kept]:
    """Every segment kept; the order is by name."""
    for path in sorted((spool / FOLDER).glob(f"*{_SUFFIX}")):
        segment, _, size = path.name.removesuffix(_SUFFIX).rpartition(".")
        if segment and size.isdecimal():
            yield Kept(path, segment, int(size))


def keep(*segments: Path) -> None:
    """Move segments of one spool that are wholly in the log. Safe to repeat. Raises OSError."""
    for segment in segments:
        if size := segment.stat().st_size:
            with segment.open("rb") as source:
                _write(source, segment.parent / FOLDER / f"{segment.name}.{size}{_SUFFIX}")
    # The copies have to be on the device before the originals go.
    for folder in {segment.parent / FOLDER for segment in segments}:
        sync_directory(folder)
    for segment in segments:
        segment.unlink()


def _write(source: IO[bytes], path: Path, *, age: os.stat_result | None = None) -> None:
    partial = path.with_suffix(_PARTIAL)
    try:
        with pa.output_stream(partial, compression="zstd") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if age is not None:
            os.utime(partial, ns=(age.st_atime_ns, age.st_mtime_ns))
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
