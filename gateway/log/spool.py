"""The spool: what the gateway has acknowledged, on disk, before DuckDB sees it.

Each worker appends JSON lines to a segment of its own, with one ``write()`` a record, and
holds a lock on it for as long as it lives. A ``write()`` that returned survives ``kill -9``.
"""

import fcntl
import os
import threading
from enum import StrEnum
from pathlib import Path

from gateway.errors import SpoolError
from gateway.log.record import Record, encode, new_id


class Durability(StrEnum):
    """What a power cut may take. A killed process loses nothing in any of them."""

    NONE = "none"  # whatever the system had not written yet, some 30 s
    INTERVAL = "interval"  # the last 100 ms
    GROUP = "group"  # nothing: a record waits for the disk, together with its neighbours


SEGMENT_BYTES = 8 << 20
SUFFIX = ".jsonl"


class SpoolWriter:
    """Appends records to one worker's segments. Not thread-safe: one event loop, one writer.

    A background thread syncs to the device every ``sync_every_s``: that bounds what a power
    cut can take; a killed process loses nothing either way.
    """

    def __init__(self, directory: Path, worker: str, *, sync_every_s: float = 0.1) -> None:
        self._directory = directory
        self._worker = worker
        directory.mkdir(parents=True, exist_ok=True)
        self._open()
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(
            target=self._sync_forever, args=(sync_every_s,), name="spool-sync", daemon=True
        )
        self._syncer.start()

    def append(self, record: Record) -> None:
        """Write one record. On return it survives the process; on SpoolError nothing is written."""
        line = encode(record)
        if self._size and self._size + len(line) > SEGMENT_BYTES:
            self._rotate()
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise SpoolError(f"cannot write to {self.segment}: {error.strerror}") from error
        if written != len(line):
            # A filling disk shortens a write before it refuses one.
            os.ftruncate(self._fd, self._size)
            raise SpoolError(f"cannot write to {self.segment}: the disk is full")
        self._size += written
        self._dirty.set()

    def close(self) -> None:
        """Sync and let go of the segment; the ingester may then retire it."""
        self._closing.set()
        self._dirty.set()
        self._syncer.join()
        os.fdatasync(self._fd)
        os.close(self._fd)

    def _open(self) -> None:
        self.segment = self._directory / f"{self._worker}-{new_id()}{SUFFIX}"
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC
        unlocked = self.segment.with_suffix(".new")
        try:
            self._fd = os.open(unlocked, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # The ingester sees it only now: an unlocked segment would look abandoned to it.
            unlocked.rename(self.segment)
        except OSError as error:
            raise SpoolError(f"cannot create {self.segment}: {error.strerror}") from error
        self._size = 0

    def _rotate(self) -> None:
        full = self._fd
        self._open()
        os.fdatasync(full)
        os.close(full)

    def _sync_forever(self, every_s: float) -> None:
        while not self._closing.wait(every_s):
            self._dirty.wait()
            self._dirty.clear()
            try:
                os.fdatasync(self._fd)
            except OSError:  # the segment was rotated away meanwhile, and synced by that
                continue


def sealed(segment: Path) -> bool:
    """Whether the segment's writer is gone, so that it will never grow again."""
    with segment.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
