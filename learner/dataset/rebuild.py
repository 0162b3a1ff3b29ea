"""Snapshots are written anew without what the log has erased since."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.log.record import new_id
from gateway.log.retention import EXPIRY
from gateway.log.store import Store
from learner.dataset.snapshot import PARTIAL, without
from learner.errors import DatasetError

logger = logging.getLogger(__name__)

OF = " of "
"""In ``datasets.query`` of a rebuilt one, before the digest of what it replaces."""

_ABANDONED_S = 3600.0

_CONCERNED = """
SELECT d.sha256, any_value(d.task) AS task, max(d.from_ts) AS from_ts, max(d.upto_ts) AS upto_ts,
  max(d.n_rows) AS n_rows, list(DISTINCT i.invocation_id::VARCHAR) AS gone,
  list(DISTINCT x.erasure_id::VARCHAR) AS erasures
FROM datasets d
JOIN dataset_items i ON i.dataset_id = d.id
JOIN erased x ON x.invocation_id = i.invocation_id
GROUP BY d.sha256 ORDER BY d.sha256
"""
_ITEMS = """
INSERT INTO dataset_items SELECT DISTINCT ?, invocation_id, split FROM dataset_items
WHERE dataset_id IN (SELECT id FROM datasets WHERE sha256 = ?)
AND invocation_id NOT IN (SELECT invocation_id FROM erased)
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file in ``folder`` that holds what was erased."""

    sha256: str
    path: Path
    row: Mapping[str, Any]

    @property
    def erasures(self) -> set[str]:
        """Whose; none when all of it has only expired."""
        return set(self.row["erasures"]) - {str(EXPIRY)}

    @property
    def why(self) -> str:
        """What the new dataset says it comes from."""
        names = ", ".join(sorted(self.erasures))
        return f"erasure {names}" if names else "retention"


def concerned(store: Store, folder: Path) -> Iterator[Snapshot]:
    """Snapshots that hold what was erased, or has expired. Once rebuilt they are no more."""
    for row in store.rows(_CONCERNED):
        path = folder / f"{row['sha256']}.parquet"
        if path.exists():
            yield Snapshot(row["sha256"], path, row)


def rebuild(store: Store, folder: Path, *, in_use: Collection[str], at: datetime) -> set[str]:
    """Replace every snapshot concerned, but those in use; the erasures that wait for these.

    One that cannot be read waits, too. Safe to repeat, also after a crash in the middle. Raises
    StoreError, OSError.
    """
    waiting: set[str] = set()
    for snapshot in concerned(store, folder):
        if snapshot.sha256 in in_use:
            waiting |= snapshot.erasures
            continue
        try:
            _replace(store, snapshot, folder, at)
        except DatasetError:
            logger.exception("%s holds erased samples; repair or delete it", snapshot.path)
            waiting |= snapshot.erasures
    for unfinished in folder.glob(f".*{PARTIAL}"):
        if at.timestamp() - unfinished.stat().st_mtime > _ABANDONED_S:
            unfinished.unlink()
    return waiting


def _replace(store: Store, snapshot: Snapshot, folder: Path, at: datetime) -> None:
    new = without(snapshot.path, set(snapshot.row["gone"]), folder)
    if new == snapshot.path:
        return  # its file never held them
    if new is not None:
        _write_down(store, snapshot, new, at)
    snapshot.path.unlink()
    name = "nothing" if new is None else new.stem[:12]
    logger.info("dataset %s became %s by %s", snapshot.sha256[:12], name, snapshot.why)


def _write_down(store: Store, snapshot: Snapshot, new: Path, at: datetime) -> None:
    row, query = snapshot.row, f"{snapshot.why}{OF}{snapshot.sha256}"
    identity, left = str(new_id()), row["n_rows"] - len(row["gone"])
    with store.transaction() as transaction:
        if transaction.execute("SELECT 1 FROM datasets WHERE query = ?", [query]):
            return
        values = [
            identity,
            at.replace(tzinfo=None),
            row["task"],
            row["from_ts"],
            row["upto_ts"],
            query,
            str(new),
            new.stem,
            left,
        ]
        transaction.execute("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        transaction.execute(_ITEMS, [identity, snapshot.sha256])
