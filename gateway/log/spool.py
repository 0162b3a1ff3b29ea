"""The spool: what the gateway has acknowledged, on disk, before DuckDB sees it.

Each worker appends JSON lines to a segment of its own, one ``write()`` for a record or for
several at once, and holds a lock on it for as long as it writes there. A ``write()`` that
returned survives ``kill -9``.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from gateway.errors import SpoolError
from gateway.log.cipher import Cipher
from gateway.log.commit import GroupCommit
from gateway.log.record import Incident, Record, encode, encode_lines, new_id
from gateway.log.segment import SUFFIX, Segment, sealed, sweep
from gateway.log.space import Space

__all__ = ["SUFFIX", "Durability", "SpoolWriter", "sealed"]

logger = logging.getLogger(__name__)


class Durability(StrEnum):
    """What a power cut may take. A killed process loses nothing in any of them."""

    NONE = "none"  # whatever the system had not written yet, some 30 s
    INTERVAL = "interval"  # the last 100 ms
    GROUP = "group"  # nothing: a record waits for the disk, together with its neighbours


SEGMENT_BYTES = 8 << 20
SEGMENT_S = 60.0
SYNC_EVERY_S = 0.1


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SpoolWriter:
    """Appends records to one worker's segments, and lets go of each when it is full or old.

    Any thread may append. A thread of the writer's own syncs, seals and closes segments, so
    that no caller waits for the disk but in ``synced``. There is no segment before the first
    record, nor after a quiet minute. Make it after any fork: a child would share its lock.
    """

    def __init__(  # noqa: PLR0913 - what the spool is told once
        self,
        directory: Path,
        worker: str,
        *,
        durability: Durability = Durability.INTERVAL,
        quota: int = 10 << 30,
        reserve: int = 1 << 30,
        cipher: Cipher | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._directory = directory
        self._worker = worker
        self._durability = durability
        self._cipher = cipher
        self._now = now
        try:
            directory.mkdir(parents=True, exist_ok=True)
            sweep(directory)
        except OSError as error:
            raise SpoolError(f"cannot use {directory} as spool: {error.strerror}") from error
        if not os.access(directory, os.W_OK | os.X_OK):
            raise SpoolError(f"cannot use {directory} as spool: no permission to write there")
        self.segment: Path | None = None
        """Where the last record went; None before the first."""
        self._space = Space(directory, quota=quota, reserve=reserve)
        self._dropped: Counter[str] = Counter()
        self._lock = threading.Lock()  # of the four below
        self._current: Segment | None = None
        self._left: list[Segment] = []
        self._appended = 0
        self._closed = False
        self._commit = GroupCommit()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="spool", daemon=True)
        self._thread.start()

    def append(self, *records: Record) -> None:
        """Write records. On return they survive the process; on SpoolError none is written.

        It never waits for the disk. Once the trouble has passed it works again.
        """
        lines = encode_lines(records, self._cipher)
        with self._lock:
            if self._closed:
                raise SpoolError(f"the spool {self._directory} is closed: the process is ending")
            if self._dropped:
                self._own_up(len(lines))
            self._write(lines)
        if self._durability is Durability.GROUP and not self._wake.is_set():
            self._wake.set()

    @property
    def waits(self) -> bool:
        """Whether ``synced`` has anything to wait for."""
        return self._durability is Durability.GROUP

    async def synced(self) -> None:
        """Until all that was appended so far is as durable as promised.

        Raises SpoolError when the disk refused it. Only ``group`` promises anything to wait for.
        """
        if self.waits:
            await self._commit.wait(self._appended)

    def drop(self, n: int = 1, *, reason: str) -> None:
        """Count answers given without a record; the next record to fit is preceded by the sum."""
        with self._lock:
            self._dropped[reason] += n

    def close(self) -> None:
        """Sync and let go of the segment; the ingester may then retire it."""
        with self._lock:
            if self._closed:
                return
            try:
                self._own_up(0)
            except SpoolError as error:
                n = self._dropped.total()
                logger.error("%d answers lack a record, and not even that fits: %s", n, error)  # noqa: TRY400
            self._closed = True
            self._leave()
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _own_up(self, further: int) -> None:
        """Write how many answers lack a record; ``further`` bytes are to follow."""
        for reason, n in list(self._dropped.items()):
            incident = Incident(id=new_id(), ts=self._now(), kind="dropped", n=n, detail=reason)
            self._write(encode(incident, self._cipher), further)
            del self._dropped[reason]

    def _write(self, line: bytes | bytearray, further: int = 0) -> None:
        """Raises SpoolError; then nothing is written."""
        current = self._current
        if current is not None and current.size and current.size + len(line) > SEGMENT_BYTES:
            self._leave()
        try:
            self._space.take(len(line), further)
            segment = self._current or self._begin()
            segment.write(line)
        except OSError as error:
            if self._current is not None and self._current.torn:
                self._leave()
            raise SpoolError(
                f"cannot write to the spool {self._directory}: {error.strerror}; it is tried "
                "again with the next record"
            ) from error
        self._appended += 1

    def _begin(self) -> Segment:
        self._current = segment = Segment.create(self._directory, self._worker)
        self.segment = segment.path
        self._wake.set()
        return segment

    def _leave(self) -> None:
        """Have the thread let go of the current segment, once that is synced."""
        if self._current is not None:
            self._left.append(self._current)
            self._current = None
            self._wake.set()

    def _tend(self) -> None:
        """Sync as long as there is anything unsynced, and let go of segments."""
        while not self._closing.is_set():
            self._wake.wait(self._patience())
            self._wake.clear()
            self._sync()
        self._sync()

    def _patience(self) -> float | None:
        """How long there is nothing to do unless somebody calls; None: for ever."""
        left = self._age_left()
        if left is None or self._durability is not Durability.INTERVAL:
            return left
        return min(left, SYNC_EVERY_S)

    def _age_left(self) -> float | None:
        current = self._current
        return None if current is None else max(0.0, current.opened + SEGMENT_S - time.monotonic())

    def _sync(self) -> None:
        with self._lock:
            if self._age_left() == 0.0:
                self._leave()
            left, self._left = self._left, []
            current, upto = self._current, self._appended
        why = None
        if self._durability is not Durability.NONE:
            for segment in [*left, current] if current else left:
                try:
                    segment.sync()
                except OSError as error:
                    why = f"the disk did not take the end of {segment.path}: {error.strerror}"
                    logger.error("%s; a new segment is begun", why)  # noqa: TRY400
                    upto = self._abandon(segment)
        for segment in left:
            segment.close()
        if why is None:
            self._commit.done(upto)
        else:
            self._commit.refuse(upto, why)

    def _abandon(self, segment: Segment) -> int:
        """Let go of a segment that failed to sync: the next sync of it would prove nothing.

        How many records may be concerned.
        """
        with self._lock:
            if self._current is segment:
                self._current = None
                segment.close()
            return self._appended
