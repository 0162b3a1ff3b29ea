"""The right to be forgotten, in the log: rows go, and what turns up late stays out.

An erasure is a record of the spool like any other, applied in the ingester's transaction. Its
bytes stay in the files until ``Store.compact`` and ``gateway.log.blank`` have run.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import pyarrow as pa

from gateway.log.record import Edit, Erasure, Feedback, Invocation
from gateway.log.store import Store
from gateway.log.transaction import Transaction

ROWS = "rows"
BODIES = "bodies"
DELETED = "deleted"
"""The step after which no query sees what was erased."""

_ERASURES = """
SELECT id::VARCHAR AS id, ts, tenant, scope, subject_id, invocation_id::VARCHAR AS invocation_id
FROM erasures
"""
_TAKEN = """
SELECT e.tenant, e.scope, e.ts, x.invocation_id::VARCHAR AS invocation_id,
  x.episode_id::VARCHAR AS episode_id,
  e.scope = 'rows' AND NOT EXISTS (
    SELECT 1 FROM invocations i WHERE i.tenant = e.tenant AND i.episode_id = x.episode_id
  ) AS is_emptied
FROM erased x JOIN erasures e ON e.id = x.erasure_id
"""
_LIST = """
INSERT INTO erased SELECT ?, id, episode_id, ? FROM invocations
WHERE {which} AND id NOT IN (SELECT invocation_id FROM erased WHERE erasure_id = ?)
"""
_ABOUT = """
tenant = ? AND target = 'invocation'
AND target_id IN (SELECT invocation_id FROM erased WHERE erasure_id = ?)
"""
_EMPTIED = """
tenant = ? AND target = 'episode' AND ts <= ?
AND target_id IN (SELECT episode_id FROM erased WHERE erasure_id = ?)
AND target_id NOT IN (SELECT episode_id FROM invocations WHERE tenant = ?)
"""
_FORGET = (
    "DELETE FROM edits WHERE invocation_id IN (SELECT unnest(?::UUID[]))",
    "DELETE FROM feedback WHERE target = 'invocation' AND target_id IN (SELECT unnest(?::UUID[]))",
)
BARE = (
    "* REPLACE (NULL AS request, NULL AS response, NULL AS verdicts, "
    "false AS stored, false AS train_ok)"
)
WHOLE = (
    "(request IS NOT NULL OR response IS NOT NULL OR verdicts IS NOT NULL OR stored OR train_ok)"
)
"""A guard's reasons may quote what was said."""

SPOKEN = "(explanation IS NOT NULL OR value IS NOT NULL)"


@dataclass(slots=True)
class Erased:
    """What must not come into the log, or not whole, whenever it turns up.

    Of a subject only what began by the time of its erasure is concerned.
    """

    _subjects: dict[tuple[str, str, str], Erasure] = field(default_factory=dict)
    """The latest erasure by scope, tenant and subject."""
    _gone: set[tuple[str, UUID]] = field(default_factory=set)
    """Tenant and invocation."""
    _bare: dict[tuple[str, UUID], datetime] = field(default_factory=dict)
    """When the bodies of a tenant's invocation were erased."""
    _episodes: dict[tuple[str, UUID], datetime] = field(default_factory=dict)
    """When the last calls of a tenant's episode were erased."""

    @classmethod
    def read(cls, store: Store) -> Self:
        """What the log knows of; to be read anew after each commit that erased something."""
        erased = cls()
        erased.add(_erasure(row) for row in store.rows(_ERASURES))
        for row in store.rows(_TAKEN):
            tenant, scope, at = row["tenant"], row["scope"], _aware(row["ts"])
            erased._take(tenant, scope, UUID(row["invocation_id"]), at)
            if row["is_emptied"]:
                key = tenant, UUID(row["episode_id"])
                erased._episodes[key] = max(at, erased._episodes.get(key, _NEVER))
        return erased

    def add(self, erasures: Iterable[Erasure]) -> None:
        """What these name, but not yet the invocations they will find."""
        for erasure in erasures:
            if erasure.subject_id is not None:
                key = erasure.scope, erasure.tenant, erasure.subject_id
                known = self._subjects.get(key)
                if known is None or known.ts < erasure.ts:
                    self._subjects[key] = erasure
            if erasure.invocation_id is not None:
                self._take(erasure.tenant, erasure.scope, erasure.invocation_id, erasure.ts)

    def covers(self, record: Invocation | Feedback | Edit) -> bool:
        """Whether it must not be in the log."""
        if isinstance(record, Invocation):
            return (record.tenant, record.id) in self._gone or self._of(record, ROWS) is not None
        if isinstance(record, Edit):
            return (record.tenant, record.invocation_id) in self._gone
        target = record.tenant, record.target_id
        if record.target == "episode":
            return record.ts <= self._episodes.get(target, _NEVER)
        speaks = record.explanation is not None or record.value is not None
        return target in self._gone or (speaks and record.ts <= self._bare.get(target, _NEVER))

    def strips(self, record: Invocation) -> bool:
        """Whether it may be in the log only without its bodies."""
        return (record.tenant, record.id) in self._bare or self._of(record, BODIES) is not None

    def names(self) -> Iterable[str]:
        """Subjects and invocations as a line of the spool would spell them."""
        yield from (subject for _, _, subject in self._subjects)
        yield from (str(invocation) for _, invocation in (*self._gone, *self._bare))

    def note(self, transaction: Transaction, late: Sequence[Invocation], at: datetime) -> None:
        """Remember covered invocations that were left out, and forget what was said of them."""
        found = {
            str(record.id): {
                "erasure_id": str(erasure.id),
                "invocation_id": str(record.id),
                "episode_id": str(record.episode_id),
                "ts": _naive(at),
            }
            for record in late
            if (record.tenant, record.id) not in self._gone
            and (erasure := self._of(record, ROWS)) is not None
        }
        if found:
            transaction.insert("erased", pa.Table.from_pylist(list(found.values()), _ERASED))
            # The spool's files hold these: the erasure is not removed any more.
            for name, n in Counter(str(one["erasure_id"]) for one in found.values()).items():
                _done(transaction, name, at, n, 0)
        if late:
            for statement in _FORGET:
                transaction.execute(statement, [[str(record.id) for record in late]])

    def _of(self, record: Invocation, scope: str) -> Erasure | None:
        erasure = self._subjects.get((scope, record.tenant, record.subject_id or ""))
        return erasure if erasure is not None and record.ts <= erasure.ts else None

    def _take(self, tenant: str, scope: str, invocation: UUID, at: datetime) -> None:
        if scope == ROWS:
            self._gone.add((tenant, invocation))
        else:
            key = tenant, invocation
            self._bare[key] = max(at, self._bare.get(key, _NEVER))


def those(store: Store, which: str, values: Sequence[Any]) -> list[Erasure]:
    """The erasures that meet a condition."""
    return [_erasure(row) for row in store.rows(f"{_ERASURES} WHERE {which}", values)]


def apply(transaction: Transaction, erasures: Sequence[Erasure], at: datetime) -> None:
    """Erase what the log holds, this transaction's rows included. Safe to repeat.

    Of several with one id the first counts: a second reaches no further than that did.
    """
    for asked in erasures:
        known = transaction.execute(f"{_ERASURES} WHERE id = ?", [str(asked.id)])
        erasure = _erasure(known[0]) if known else asked
        if not known:
            _write(transaction, erasure, at)
        listed = _listed(transaction, erasure)
        which, values = _which(erasure)
        transaction.execute(
            _LIST.format(which=which), [str(erasure.id), _naive(at), *values, str(erasure.id)]
        )
        act = _delete if erasure.scope == ROWS else _strip
        feedback = act(transaction, erasure, which, values)
        invocations = _listed(transaction, erasure) - listed
        if not known or invocations or feedback:
            _done(transaction, str(erasure.id), at, invocations, feedback)


def _done(
    transaction: Transaction, erasure: str, at: datetime, invocations: int, feedback: int
) -> None:
    step = [erasure, _naive(at), DELETED, invocations, feedback]
    transaction.execute("INSERT INTO erasure_steps VALUES (?, ?, ?, ?, ?)", step)


def _which(erasure: Erasure) -> tuple[str, list[Any]]:
    """The condition on ``invocations``, and its values."""
    if erasure.invocation_id is not None:
        return "tenant = ? AND id = ?", [erasure.tenant, str(erasure.invocation_id)]
    return (
        "tenant = ? AND subject_id = ? AND ts <= ?",
        [erasure.tenant, erasure.subject_id, _naive(erasure.ts)],
    )


def _write(transaction: Transaction, erasure: Erasure, at: datetime) -> None:
    """Add the erasure to the log."""
    row = [
        str(erasure.id),
        _naive(erasure.ts),
        _naive(at),
        erasure.tenant,
        erasure.scope,
        erasure.subject_id,
        None if erasure.invocation_id is None else str(erasure.invocation_id),
        erasure.reason,
    ]
    transaction.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _listed(transaction: Transaction, erasure: Erasure) -> int:
    return _count(transaction, "erased WHERE erasure_id = ?", [str(erasure.id)])


def _delete(transaction: Transaction, erasure: Erasure, which: str, values: list[Any]) -> int:
    """The rows, what was said of them, and of episodes that have none left."""
    identity, tenant = str(erasure.id), erasure.tenant
    transaction.execute(f"DELETE FROM invocations WHERE {which}", values)  # noqa: S608 - ours
    transaction.execute(
        "DELETE FROM edits WHERE tenant = ? "
        "AND invocation_id IN (SELECT invocation_id FROM erased WHERE erasure_id = ?)",
        [tenant, identity],
    )
    said = 0
    emptied = [tenant, _naive(erasure.ts), identity, tenant]
    for about, of in ((_ABOUT, [tenant, identity]), (_EMPTIED, emptied)):
        said += _count(transaction, f"feedback WHERE {about}", of)
        transaction.execute(f"DELETE FROM feedback WHERE {about}", of)  # noqa: S608 - ours
    return said


def _strip(transaction: Transaction, erasure: Erasure, which: str, values: list[Any]) -> int:
    """The rows without bodies, and what was said of them without its words.

    Never by UPDATE: that rewrites whole row groups of bodies.
    """
    replace(transaction, "invocations", BARE, f"{which} AND {WHOLE}", values)
    about = f"{_ABOUT} AND ts <= ? AND {SPOKEN}"
    of = [erasure.tenant, str(erasure.id), _naive(erasure.ts)]
    said = _count(transaction, f"feedback WHERE {about}", of)
    replace(transaction, "feedback", "* REPLACE (NULL AS explanation, NULL AS value)", about, of)
    return said


def replace(
    transaction: Transaction, table: str, columns: str, which: str, values: Sequence[Any]
) -> None:
    """Put ``columns`` in the place of the rows; they must no longer be ``which``."""
    for statement in (
        f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE {which}",  # noqa: S608 - ours
        f"DELETE FROM {table} WHERE {which}",  # noqa: S608 - ours
    ):
        transaction.execute(statement, list(values))


def _erasure(row: dict[str, Any]) -> Erasure:
    invocation = row["invocation_id"]
    return Erasure(
        id=UUID(row["id"]),
        ts=_aware(row["ts"]),
        tenant=row["tenant"],
        scope=row["scope"],
        subject_id=row["subject_id"],
        invocation_id=None if invocation is None else UUID(invocation),
    )


def _count(transaction: Transaction, rest: str, values: Sequence[Any]) -> int:
    found: int = transaction.execute(f"SELECT count(*) AS n FROM {rest}", list(values))[0]["n"]  # noqa: S608
    return found


def _naive(moment: datetime) -> datetime:
    """As the log's columns have it: UTC, unsaid."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


_NEVER = datetime.min.replace(tzinfo=UTC)

_ERASED = pa.schema(
    [
        ("erasure_id", pa.string()),
        ("invocation_id", pa.string()),
        ("episode_id", pa.string()),
        ("ts", pa.timestamp("us")),
    ]
)
