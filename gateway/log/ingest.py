"""Moves what the spool has into the log, exactly once."""

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import pyarrow as pa

from gateway.errors import StoreBroken, StoreError, StoreFull
from gateway.log import done, quarantine, rows
from gateway.log.batch import Batch
from gateway.log.cipher import Cipher
from gateway.log.cost import Price
from gateway.log.done import Kept
from gateway.log.erasure import Erased
from gateway.log.lines import READ_BYTES, Line, Source
from gateway.log.record import Incident, new_id
from gateway.log.refusal import is_refusal, reason
from gateway.log.segment import SUFFIX, born, sweep
from gateway.log.store import Store

logger = logging.getLogger(__name__)

PASS_BYTES = 16 << 20
"""Read before a transaction is made of it, however many segments wait."""
RETIRING_COSTS = 64 << 10
"""As long as reading so many bytes takes it at least, to be done with a segment."""
KEEP = timedelta(hours=24)
OFFSETS_KEPT = timedelta(days=30)
PRUNE_EVERY_S = 3600.0
LONGEST_WAIT_S = 30.0

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_FORGOTTEN = """
DELETE FROM spool_segments WHERE segment IN (
  SELECT segment FROM spool_segments GROUP BY segment HAVING max(ts) < ?)
  AND NOT list_contains(?::VARCHAR[], segment)
"""
_PASSED = """
DELETE FROM spool_segments WHERE (segment, upto) NOT IN (
  SELECT (segment, max(upto)) FROM spool_segments GROUP BY segment)
"""
"""Each pass adds an offset a segment, four a second: millions a month."""


class Ingester:
    """Tails the segments of one spool directory into the store.

    Rows and offsets are committed together, so that a crash anywhere between reading and
    retiring a segment neither loses nor doubles a record. Retired segments are kept for a
    day: should the log lose its write-ahead file, or itself, they are read again, and only
    what is missing is added. What cannot be read is kept in ``quarantine``, and the log has an
    incident that says so.

    When the spool's disk has less than ``reserve`` bytes left, kept segments go, the oldest
    first; when the log's disk has less than half of it, nothing is taken in.
    """

    def __init__(  # noqa: PLR0913 - what connects a spool with a log
        self,
        store: Store,
        spool: Path,
        *,
        now: Callable[[], datetime],
        prices: Mapping[str, Price] | None = None,
        cipher: Cipher | None = None,
        reserve: int = 0,
    ) -> None:
        self.trouble: str | None = None
        """Why the log does not take what the spool has; None when it does. For a health check."""
        self._store = store
        self.spool = spool
        self._now = now
        self._prices = prices or {}
        self._cipher = cipher
        self._reserve = reserve
        self._lock = threading.Lock()
        self._failures = 0
        self._suspect = False
        self._unreadable: str | None = None
        self._healed: list[Incident] = []
        for folder in (done.FOLDER, quarantine.FOLDER):
            (spool / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(spool)
        try:
            self._load()
        except StoreBroken:  # reading came upon damage; opened anew, the log is healed
            store.reopen()
            self._load()

    def run_once(self) -> int:
        """Take in what is there, up to PASS_BYTES; how much that was, 0: nothing is left.

        From any thread. Raises StoreError or OSError; then nothing was taken that is not in the
        log, and the next call starts by mending what it can.
        """
        with self._lock:
            try:
                self._mend()
                lines, finished = self._gather()
                self._commit(lines)
                self._retire(finished)
            except (StoreError, OSError) as error:
                # A first failure may pass; after a second one only a new start may help.
                blames_store = isinstance(error, StoreError) and not isinstance(error, StoreFull)
                self._suspect = blames_store and self._failures > 0
                self._failures += 1
                raise
            self._failures = 0
            return len(lines) or len(finished)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is read, taken or retired meanwhile; writers go on."""
        with self._lock:
            yield

    def run(self, stop: threading.Event, *, every_s: float = 0.25) -> None:
        """Ingest until ``stop``. Whatever goes wrong is said once, and tried again."""
        pruned = float("-inf")
        while not stop.wait(min(every_s * 2 ** min(self._failures, 20), LONGEST_WAIT_S)):
            try:
                while self.run_once() and not stop.is_set():
                    pass
                self._make_room()
                if time.monotonic() - pruned > PRUNE_EVERY_S:
                    pruned = time.monotonic()
                    self.prune()
            except (StoreError, OSError) as error:
                self._say(f"the log is in trouble; what is spooled waits: {error}")
            else:
                self._say(self._unreadable)
        try:
            self.run_once()
        except (StoreError, OSError):
            logger.exception("what is left in the spool waits for the next start")

    def prune(self) -> None:
        """Let go of segments kept long enough, and of offsets that nobody will ask for.

        Only after a checkpoint: what was ingested a day ago may still be in the WAL alone.
        """
        with self._lock:
            oldest = (self._now() - KEEP).timestamp()
            self._discard(old for old in self._spare() if old.path.stat().st_mtime < oldest)
            here = [path.name for path in self.spool.glob(f"*{SUFFIX}")]
            here += [kept.segment for kept in done.kept(self.spool)]
            with self._store.transaction() as transaction:
                before = (self._now() - OFFSETS_KEPT).replace(tzinfo=None)
                transaction.execute(_FORGOTTEN, [before, here])
                transaction.execute(_PASSED)
            self._load()

    def _make_room(self) -> None:
        """A call that can be recorded is worth more than a second copy of an old one."""

        def scarce(_: Kept) -> bool:
            return shutil.disk_usage(self.spool).free < self._reserve

        with self._lock:
            self._discard(takewhile(scarce, self._spare()))

    def _spare(self) -> list[Kept]:
        """Kept segments that are wholly in the log, the oldest first."""
        spare = (one for one in done.kept(self.spool) if one.segment not in self._replays)
        return sorted(spare, key=lambda kept: kept.path.stat().st_mtime)

    def _discard(self, kept: Iterable[Kept]) -> None:
        """Let go of them; before the first one, what they hold leaves the WAL."""
        for number, one in enumerate(kept):
            if not number:
                self._store.checkpoint()
            one.path.unlink()

    def _load(self) -> None:
        """Learn from the log how far it is."""
        self._offsets = self._store.offsets()
        self._erased = Erased.read(self._store)
        self._replays = {
            kept.segment: kept
            for kept in done.kept(self.spool)
            if self._offsets.get(kept.segment, 0) < kept.size
        }

    def _mend(self) -> None:
        """Open the log anew if it broke, and look again at all that it may have lost."""
        reopens = self._store.broken or self._suspect
        if reopens:
            self._store.reopen()
            self._suspect = False
        healed = self._store.take_healed()
        self._healed += (
            Incident(id=new_id(), ts=self._now(), kind="healed", n=1, detail=detail)
            for detail in healed
        )
        if self._healed:
            made = [rows.incident(incident, self._now()) for incident in self._healed]
            with self._store.transaction() as transaction:
                transaction.insert("incidents", rows.table(made, rows.INCIDENTS))
                transaction.execute("DELETE FROM spool_segments")
            self._healed = []
            self._load()
        elif reopens or self._failures:
            self._load()

    def _sources(self) -> list[Source]:
        """What may hold something new, oldest first: look-ups want ids to enter in their order."""
        names = {path.name: Source(path.name, path) for path in self.spool.glob(f"*{SUFFIX}")}
        replays = {name: Source(name, kept) for name, kept in self._replays.items()}
        return sorted((replays | names).values(), key=lambda source: born(source.segment))

    def _gather(self) -> tuple[list[Line], list[Source]]:
        """The next lines, and the segments of which nothing is left behind them."""
        lines: list[Line] = []
        finished = []
        left = PASS_BYTES
        self._unreadable = None
        for source in self._sources():
            start = self._offsets.get(source.segment, 0)
            try:
                new, is_finished = source.read(start, self._cipher)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._unreadable = f"a segment of the spool cannot be read: {error}"
                continue
            lines += new
            if is_finished:
                finished.append(source)
            read = new[-1].end - start if new else 0
            left -= max(read, RETIRING_COSTS) if is_finished else read
            if left < READ_BYTES:
                break
        return lines, finished

    def _commit(self, lines: list[Line]) -> None:
        """Bring the lines into the log. If it refuses some, these go to quarantine alone."""
        if not lines:
            return
        try:
            self._write(lines)
        except (StoreError, pa.ArrowException, OverflowError) as error:
            if not is_refusal(error, lines):
                raise
            if len(lines) == 1:
                why = f"the log refuses it: {reason(error)}"
                self._write([lines[0]._replace(record=None, why=why)])
                return
            middle = len(lines) // 2
            self._commit(lines[:middle])
            self._commit(lines[middle:])

    def _write(self, lines: list[Line]) -> None:
        free, least = self._store.free(), self._reserve // 2
        if free < least:
            raise StoreFull(
                f"its disk has {free >> 20} MB left, and {least >> 20} MB must stay free: "
                "make room, or lower `log.reserve`"
            )
        batch = Batch.of(lines, self._now(), self._erased, self._prices)
        for damage in batch.damages:
            logger.warning("to quarantine: %s: %s", damage.name, damage.lines[0].why)
            damage.keep(self.spool / quarantine.FOLDER)
        with self._store.transaction() as transaction:
            batch.write(transaction, self._erased)
        self._offsets |= batch.offsets
        if batch.erases:
            self._erased = Erased.read(self._store)

    def _retire(self, finished: list[Source]) -> None:
        for source in finished:
            if isinstance(source.place, Kept):
                del self._replays[source.segment]
        segments = [one.place for one in finished if isinstance(one.place, Path)]
        try:
            done.keep(*segments)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # A full spool is emptied all the same: without copies, once the log's file has it.
            self._store.checkpoint()
            for segment in segments:
                segment.unlink()

    def _say(self, trouble: str | None) -> None:
        """Log what changed, not what is still so."""
        if (trouble is None) != (self.trouble is None):
            if trouble is None:
                logger.info("the log takes what is spooled again")
            else:
                logger.error(trouble)
        self.trouble = trouble
