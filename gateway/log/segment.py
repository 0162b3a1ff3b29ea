"""One file of the spool: made by one writer, locked for as long as that writes to it."""

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from gateway.log.record import new_id

SUFFIX = ".jsonl"
_UNBORN = ".new"
_STALE_S = 60.0
_UUID_LENGTH = 36


class Segment:
    """A locked file of lines. ``sync`` may run beside ``write``; nothing else may overlap."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.size = 0
        self.torn = False
        self.opened = time.monotonic()
        self._fd = fd
        self._synced = 0

    @classmethod
    def create(cls, directory: Path, worker: str) -> Self:
        """A new segment under a name never used before. Raises OSError; then there is none."""
        path = directory / f"{worker}-{new_id()}{SUFFIX}"
        unborn = path.with_suffix(_UNBORN)
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
        fd = os.open(unborn, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # The ingester sees it only now: an unlocked segment would look abandoned to it.
            unborn.rename(path)
        except OSError:
            os.close(fd)
            unborn.unlink(missing_ok=True)
            raise
        return cls(path, fd)

    def write(self, lines: bytes | bytearray) -> None:
        """Append whole lines with one ``write()``. Raises OSError; then nothing of it is kept.

        Should the start of what did not fit stay, because truncating was refused too,
        the segment is ``torn``: it must be let go of, for that to be its last line.
        """
        written = os.write(self._fd, lines)
        if written != len(lines):
            # A filling disk shortens a write before it refuses one.
            self.torn = True
            os.ftruncate(self._fd, self.size)
            self.torn = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def sync(self) -> None:
        """Bring what was written before the call to the device, the name too. Raises OSError."""
        size = self.size
        if size == self._synced:
            return
        os.fdatasync(self._fd)
        if not self._synced:
            sync_directory(self.path.parent)
        self._synced = size

    def close(self) -> None:
        """Let go of the file: it is sealed, and the ingester's."""
        os.close(self._fd)


def sealed(segment: Path) -> bool:
    """Whether the segment's writer is gone, so that it will never grow again."""
    with segment.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` survive a power cut. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep(directory: Path) -> None:
    """Remove what writers left that died while they made a segment; it is always empty."""
    for unborn in directory.glob(f"*{_UNBORN}"):
        try:
            if time.time() - unborn.stat().st_mtime > _STALE_S:
                unborn.unlink()
        except FileNotFoundError:  # another worker swept it
            continue


def born(name: str) -> str:
    """What segments sort by as they were begun, whoever the writer: the UUIDv7 in the name."""
    return name.removesuffix(SUFFIX)[-_UUID_LENGTH:]


def stats(spool: Path) -> dict[str, os.stat_result]:
    """Each segment of any worker, by name; one that goes meanwhile is left out."""
    found = {}
    for path in spool.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            found[path.name] = path.stat()
    return found


def sizes(spool: Path) -> dict[str, int]:
    """How much each segment holds, ingested or not: it goes when it is full or old."""
    return {name: stat.st_size for name, stat in stats(spool).items()}
