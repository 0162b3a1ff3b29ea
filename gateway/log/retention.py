"""Two clocks over the log: bodies go first, whole rows later."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from gateway.log import quarantine
from gateway.log.erasure import replace
from gateway.log.store import Store
from gateway.log.transaction import Transaction

EXPIRY = UUID(int=0)
"""Stands in ``erased`` for the erasure of what the clocks took: dataset snapshots lose it, too."""

QUARANTINED = timedelta(days=30)
"""How long a line that cannot be read waits for somebody who can read it."""

BATCH = 50_000
"""Rows a transaction, so that the ingester never waits long."""

_NEXT = """
SELECT max(ts) AS upto
FROM (SELECT ts FROM invocations WHERE ts < ? AND {which} ORDER BY ts LIMIT ?)
"""
_COPIED = """
INSERT INTO erased SELECT ?, id, episode_id, ? FROM invocations
WHERE ts <= ? AND id IN (SELECT invocation_id FROM dataset_items)
AND id NOT IN (SELECT invocation_id FROM erased)
"""
_FORGET = (
    "DELETE FROM edits WHERE invocation_id IN (SELECT id FROM invocations WHERE ts <= ?)",
    """
    DELETE FROM feedback
    WHERE target = 'invocation' AND target_id IN (SELECT id FROM invocations WHERE ts <= ?)
    """,
    """
    DELETE FROM feedback
    WHERE target = 'episode' AND target_id IN (SELECT episode_id FROM invocations WHERE ts <= $1)
    AND target_id NOT IN (SELECT episode_id FROM invocations WHERE ts > $1)
    """,
    "DELETE FROM invocations WHERE ts <= ?",
)
_SPEAKS = "(request IS NOT NULL OR response IS NOT NULL OR verdicts IS NOT NULL)"
_SILENT = "* REPLACE (NULL AS request, NULL AS response, NULL AS verdicts, false AS stored)"


@dataclass(frozen=True, slots=True)
class Expired:
    """How many invocations lost their bodies, and how many went."""

    bodies: int
    rows: int


def expire(
    store: Store,
    *,
    bodies: timedelta | None,
    rows: timedelta | None,
    now: datetime,
    batch: int = BATCH,
) -> Expired:
    """Take what is older than its clock allows; for ever where there is none.

    Without its bodies an invocation is no longer among the stored completions. Raises
    StoreError; what was done before stays done.
    """
    stripped = deleted = 0
    if rows is not None:
        before = _naive(now - rows)
        while upto := _next(store, before, "true", batch):
            deleted += _delete(store, upto, now)
        with store.transaction() as transaction:
            for table in ("feedback", "edits"):
                transaction.execute(f"DELETE FROM {table} WHERE ts < ?", [before])  # noqa: S608
    if bodies is not None:
        while upto := _next(store, _naive(now - bodies), _SPEAKS, batch):
            stripped += _strip(store, upto, now)
    return Expired(stripped, deleted)


def clear_quarantine(spool: Path, *, now: datetime) -> int:
    """Remove what nobody has read in time; how many files."""
    oldest = (now - QUARANTINED).timestamp()
    old = [file for file in (spool / quarantine.FOLDER).glob("*") if file.stat().st_mtime < oldest]
    for file in old:
        file.unlink()
    return len(old)


def _next(store: Store, before: datetime, which: str, batch: int) -> datetime | None:
    """Where the oldest ``batch`` of expired rows ends; None when there are none."""
    upto: datetime | None = store.rows(_NEXT.format(which=which), [before, batch])[0]["upto"]
    return upto


def _delete(store: Store, upto: datetime, now: datetime) -> int:
    with store.transaction() as transaction:
        _list_copied(transaction, upto, now)
        n = _count(transaction, upto, "true")
        for statement in _FORGET:
            transaction.execute(statement, [upto])
    return n


def _strip(store: Store, upto: datetime, now: datetime) -> int:
    with store.transaction() as transaction:
        _list_copied(transaction, upto, now)
        n = _count(transaction, upto, _SPEAKS)
        replace(transaction, "invocations", _SILENT, f"ts <= ? AND {_SPEAKS}", [upto])
    return n


def _list_copied(transaction: Transaction, upto: datetime, now: datetime) -> None:
    transaction.execute(_COPIED, [str(EXPIRY), _naive(now), upto])


def _count(transaction: Transaction, upto: datetime, which: str) -> int:
    sql = f"SELECT count(*) AS n FROM invocations WHERE ts <= ? AND {which}"  # noqa: S608 - ours
    found: int = transaction.execute(sql, [upto])[0]["n"]
    return found


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
