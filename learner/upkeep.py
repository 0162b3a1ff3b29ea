"""The log's housekeeping: what is too old goes, and what was erased leaves the files, too.

Of several learners on one log the one that leads does it. It reaches the spool of its own host;
another host's spool lets go of what is ingested within a day.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.errors import StoreError
from gateway.log.blank import blank
from gateway.log.cipher import Cipher
from gateway.log.erasure import DELETED, Erased, apply
from gateway.log.ingest import Ingester
from gateway.log.retention import EXPIRY, clear_quarantine, expire
from gateway.log.store import Store
from gateway.log.unfinished import unfinished
from learner.dataset.rebuild import concerned, rebuild
from learner.jobs import TurnStore
from learner.sections import RetentionSection

logger = logging.getLogger(__name__)

REMOVED = "removed"
"""The step after which no file holds what was erased."""

REMOVE_WITHIN = timedelta(days=1)
"""Erased rows leave the files at most this long after the last removal."""

COMPACT_EVERY = timedelta(days=7)
"""How often the log is written anew when nobody was erased: expired rows leave it then."""

REPEAT_FOR = timedelta(days=2)
"""Longer than any spool takes to arrive."""

_PENDING = f"""
SELECT erasure_id::VARCHAR AS id FROM erasure_steps GROUP BY erasure_id
HAVING max(ts) FILTER (step = '{DELETED}')
  > coalesce(max(ts) FILTER (step = '{REMOVED}'), TIMESTAMP '1970-01-01')
"""  # noqa: S608 - our own constants
_LAST = f"""
SELECT coalesce(
  (SELECT max(ts) FROM erasure_steps WHERE step = '{REMOVED}' AND ts <= ?),
  (SELECT min(ingest_ts) FROM invocations)
) AS at
"""  # noqa: S608 - our own constant
"""A removal of the future, by a clock that was wrong, puts none off."""


class Upkeep:
    """Keeps the promises about how long something is kept. One run at a time, from any thread."""

    def __init__(  # noqa: PLR0913 - everything that holds what clients said
        self,
        store: Store,
        ingester: Ingester,
        turns: TurnStore,
        *,
        spool: Path,
        datasets: Path,
        retention: RetentionSection,
        cipher: Cipher | None,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._ingester = ingester
        self._turns = turns
        self._spool = spool
        self._datasets = datasets
        self._retention = retention
        self._cipher = cipher
        self._now = now
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Do what is due. What fails is tried again at the next tick."""
        try:
            expired = expire(
                self._store,
                bodies=self._retention.bodies,
                rows=self._retention.rows,
                now=self._now(),
            )
            if expired.bodies or expired.rows:
                logger.info("expired: %d bodies, %d rows", expired.bodies, expired.rows)
            clear_quarantine(self._spool, now=self._now())
            self._repeat()
            if self._due():
                self.remove()
        except (StoreError, OSError):
            logger.exception("upkeep of the log failed; it is tried again at the next tick")

    def remove(self) -> int:
        """Remove physically what has been erased, or has expired, and shrink the log.

        A snapshot that a running turn uses stays until that ends, and with it the erasures it is
        concerned by stay unfinished: how many. The ingester waits meanwhile, requests do not.
        Raises StoreError; it can be repeated.
        """
        with self._lock:
            try:
                self._ingester.run_once()
                with self._ingester.paused():
                    at = self._now()  # what turns up from here on is not done with
                    pending = {row["id"] for row in self._store.rows(_PENDING)}
                    waiting = self._rebuild(pending, at)
                    blanked = blank(self._spool, Erased.read(self._store), self._cipher)
                    self._store.compact()
            except OSError as error:
                raise StoreError(f"cannot remove what was erased: {error}") from error
            self._write_down(pending - waiting, at, finished=not waiting)
        logger.info(
            "compacted the log; %d erasures are removed from every file, %d wait for a turn; "
            "%d lines of the spool were blanked",
            len(pending - waiting),
            len(waiting),
            blanked,
        )
        return len(waiting)

    def _repeat(self) -> None:
        """Erase again what was erased lately: another host's ingester may not have known yet."""
        for erasure in unfinished(self._store, self._now() - REPEAT_FOR):
            with self._store.transaction() as transaction:
                apply(transaction, [erasure], self._now())

    def _rebuild(self, pending: set[str], at: datetime) -> set[str]:
        """Rebuild the snapshots; the erasures that have to wait for a running turn."""
        in_use, is_building = self._in_use()
        if is_building:
            return pending
        return rebuild(self._store, self._datasets, in_use=in_use, at=at)

    def _due(self) -> bool:
        now = self._now()
        last: datetime | None = self._store.rows(_LAST, [now.replace(tzinfo=None)])[0]["at"]
        if last is None:
            return False
        age = now - last.replace(tzinfo=UTC)
        if age < (REMOVE_WITHIN if self._store.rows(_PENDING) else COMPACT_EVERY):
            return False
        in_use, is_building = self._in_use()
        held = (one.sha256 in in_use for one in concerned(self._store, self._datasets))
        return not is_building and not any(held)

    def _in_use(self) -> tuple[set[str], bool]:
        """Digests of snapshots that running turns learn from; whether one is being made."""
        names = [turn.dataset for turn in self._turns.running()]
        return {Path(name).stem for name in names if name}, None in names

    def _write_down(self, done: set[str], at: datetime, *, finished: bool) -> None:
        with self._store.transaction() as transaction:
            for name in (*sorted(done), *((str(EXPIRY),) if finished else ())):
                step = [name, at.replace(tzinfo=None), REMOVED, 0, 0]
                transaction.execute("INSERT INTO erasure_steps VALUES (?, ?, ?, ?, ?)", step)
