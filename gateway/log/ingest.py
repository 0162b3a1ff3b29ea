"""Moves what the spool has into the log, exactly once."""

import gzip
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.errors import StoreError
from gateway.log import rows
from gateway.log.record import Feedback, Invocation, decode
from gateway.log.spool import SUFFIX, sealed
from gateway.log.store import Offset, Store

logger = logging.getLogger(__name__)

BATCH_BYTES = 4 << 20
KEEP_S = 24 * 3600


@dataclass(slots=True)
class _Batch:
    """What one transaction adds."""

    invocations: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    offsets: list[Offset] = field(default_factory=list)


class Ingester:
    """Tails the segments of one spool directory into the store.

    Rows and offsets are committed together, so that a crash anywhere between reading and
    retiring a segment neither loses nor doubles a record. Retired segments are kept for a
    day, compressed: should the log lose its write-ahead file, they hold what it held.
    """

    def __init__(self, store: Store, spool: Path, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._spool = spool
        self._now = now
        for name in ("done", "quarantine"):
            (spool / name).mkdir(parents=True, exist_ok=True)
        self._offsets = store.offsets()

    def run_once(self) -> int:
        """Ingest what is there; how many rows that added. Raises StoreError; then nothing is."""
        batch = _Batch()
        finished = [
            segment
            for segment in sorted(self._spool.glob(f"*{SUFFIX}"))
            if self._read(segment, batch)
        ]
        if batch.offsets:
            self._commit(batch)
        for segment in finished:
            self._retire(segment)
        return len(batch.invocations) + len(batch.feedback)

    def run(self, stop: threading.Event, *, every_s: float = 0.25) -> None:
        """Ingest until ``stop``; a store that fails is reopened and the work repeated."""
        pruned = 0.0
        while not stop.wait(every_s):
            try:
                while self.run_once():
                    pass
                if time.monotonic() - pruned > 3600:
                    pruned = time.monotonic()
                    self._prune()
            except StoreError:
                logger.exception("the log refused a batch; reopening it")
                self._recover(stop)
        self.run_once()

    def _recover(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            try:
                self._store.reopen()
                self._offsets = self._store.offsets()
            except StoreError:
                logger.exception("the log cannot be reopened yet")
            else:
                return

    def _read(self, segment: Path, batch: _Batch) -> bool:
        """Take the segment's new whole lines; True when it is sealed and nothing is left."""
        start = self._offsets.get(segment.name, 0)
        # Asked before reading: whatever a dead writer left is then seen below.
        is_sealed = sealed(segment)
        with segment.open("rb") as file:
            file.seek(start)
            data = file.read(BATCH_BYTES)
            whole = data.rfind(b"\n") + 1
            if data and not whole and len(data) == BATCH_BYTES:
                data += file.readline()
                whole = len(data) if data.endswith(b"\n") else 0
        if not whole:
            return is_sealed
        taken = sum(self._take(line, segment, batch) for line in data[:whole].splitlines())
        batch.offsets.append(Offset(segment.name, start + whole, taken))
        return False

    def _take(self, line: bytes, segment: Path, batch: _Batch) -> int:
        try:
            record = decode(line)
            if isinstance(record, Invocation):
                batch.invocations.append(rows.invocation_row(record, self._now()))
            elif isinstance(record, Feedback):
                batch.feedback.append(rows.feedback_row(record, self._now()))
        except (ValueError, RecursionError) as error:
            # DecodeError, UnicodeDecodeError, and what json.loads says of absurd numbers.
            logger.warning("a damaged line of %s goes to quarantine: %s", segment.name, error)
            with (self._spool / "quarantine" / segment.name).open("ab") as file:
                file.write(line + b"\n")
            return 0
        return 1

    def _commit(self, batch: _Batch) -> None:
        tables = {
            "invocations": rows.table(batch.invocations, rows.INVOCATIONS),
            "feedback": rows.table(batch.feedback, rows.FEEDBACK),
        }
        filled = {name: table for name, table in tables.items() if table.num_rows}
        self._store.append(filled, batch.offsets, self._now().replace(tzinfo=None))
        for offset in batch.offsets:
            self._offsets[offset.segment] = offset.upto

    def _retire(self, segment: Path) -> None:
        if segment.stat().st_size:
            kept = self._spool / "done" / f"{segment.name}.gz"
            partial = kept.with_suffix(".tmp")
            with segment.open("rb") as source, gzip.open(partial, "wb", compresslevel=1) as target:
                shutil.copyfileobj(source, target)
            partial.replace(kept)
        segment.unlink()

    def _prune(self) -> None:
        oldest = self._now().timestamp() - KEEP_S
        for kept in (self._spool / "done").iterdir():
            if kept.stat().st_mtime < oldest:
                kept.unlink()
