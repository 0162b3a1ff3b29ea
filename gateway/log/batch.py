"""What one transaction of the ingester adds to the log."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

import pyarrow as pa

from gateway.log import erasure, rows
from gateway.log.cost import Price
from gateway.log.erasure import Erased
from gateway.log.lines import Line
from gateway.log.quarantine import Damage, damages
from gateway.log.record import GATEWAY, Edit, Erasure, Feedback, Incident, Invocation, Record
from gateway.log.store import Transaction

_RANGE = "SELECT 1 FROM {table} WHERE id BETWEEN ? AND ? LIMIT 1"
_KNOWN = "SELECT id::VARCHAR AS id FROM {table} WHERE id IN (SELECT unnest(?::UUID[]))"
_EMPTIED = "DELETE FROM {table} WHERE id IN (SELECT unnest(?::UUID[])) AND {column} IS NULL"
_BODIES = {"invocations": ("request", "response"), "feedback": ("explanation", "value")}
"""What a row may have lost when the log was healed: a replay brings it back."""
_OFFSETS = pa.schema(
    [
        ("segment", pa.string()),
        ("upto", pa.int64()),
        ("n_rows", pa.int32()),
        ("ts", pa.timestamp("us")),
    ]
)


@dataclass(slots=True)
class Batch:
    """Rows made of lines, and what else the lines ask for."""

    at: datetime
    invocations: list[rows.Row] = field(default_factory=list)
    feedback: list[rows.Row] = field(default_factory=list)
    edits: list[rows.Row] = field(default_factory=list)
    incidents: list[rows.Row] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    late: list[Invocation] = field(default_factory=list)
    """What an erasure covers: left out."""
    damages: list[Damage] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls, lines: Iterable[Line], at: datetime, erased: Erased, prices: Mapping[str, Price]
    ) -> Self:
        """Rows of the records; a record that makes no row counts as a damaged line."""
        batch = cls(at)
        batch.damages += damages(batch._seen(lines, erased, prices))
        batch.incidents += (rows.incident(one.incident(at), at) for one in batch.damages)
        return batch

    @property
    def erases(self) -> bool:
        """Whether the log knows more of erasures once this is in it."""
        return bool(self.erasures or self.late)

    def write(self, transaction: Transaction, erased: Erased) -> None:
        """Add everything that the log has not got yet.

        Raises StoreError; pa.ArrowException or OverflowError for values that no column takes.
        """
        for table, made, schema in (
            ("invocations", self.invocations, rows.INVOCATIONS),
            ("feedback", self.feedback, rows.FEEDBACK),
            ("edits", self.edits, rows.EDITS),
            ("incidents", self.incidents, rows.INCIDENTS),
        ):
            if new := _missing(transaction, table, made, schema):
                transaction.insert(table, rows.table(new, schema))
        erased.note(transaction, self.late, self.at)
        erasure.apply(transaction, self.erasures, self.at)
        told = [(name, upto, self.taken[name], self.at) for name, upto in self.offsets.items()]
        transaction.insert("spool_segments", rows.table(told, _OFFSETS))

    def _seen(
        self, lines: Iterable[Line], erased: Erased, prices: Mapping[str, Price]
    ) -> Iterator[Line]:
        """The same lines, once their records are rows of this batch."""
        for line in lines:
            self.offsets[line.segment] = line.end
            if line.record is None:
                yield line
                continue
            try:
                self._add(line.record, erased, prices)
            except Exception as error:  # noqa: BLE001 - the border: a record spoils only itself
                yield line._replace(record=None, why=f"{type(error).__name__}: {error}")
            else:
                self.taken[line.segment] += 1
                yield line

    def _add(self, record: Record, erased: Erased, prices: Mapping[str, Price]) -> None:
        if isinstance(record, Invocation):
            if erased.covers(record):
                self.late.append(record)
                return
            bare = erased.strips(record)
            self.invocations.append(rows.invocation(record, self.at, prices, bare=bare))
            opinions = rows.opinions(record, bare=bare)
            self.feedback += (rows.feedback(one, self.at) for one in opinions)
        elif isinstance(record, Feedback):
            if not erased.covers(record):
                self.feedback.append(rows.feedback(record, self.at))
        elif isinstance(record, Edit):
            if not erased.covers(record):
                self.edits.append(rows.edit(record, self.at))
        elif isinstance(record, Incident):
            self.incidents.append(rows.incident(record, self.at))
        else:
            self.erasures.append(record)


def _missing(
    transaction: Transaction, table: str, made: Sequence[rows.Row], schema: pa.Schema
) -> list[rows.Row]:
    """Each row once, without those whose id is in the table; a row there that lacks a body goes.

    Ids of the gateway's records are new and ascend, so that one look at their range is enough;
    what comes a second time is an import repeated, a segment whose offset was lost, or what a
    client sent again with the same idempotency key. The first of them counts.
    """
    by_id: dict[bytes, rows.Row] = {}
    for row in made:
        by_id.setdefault(row[0], row)
    if not by_id:
        return []
    span = [str(UUID(bytes=end)) for end in (min(by_id), max(by_id))]
    if transaction.execute(_RANGE.format(table=table), span) and (
        known := _known(transaction, table, by_id)
    ):
        for column in _BODIES.get(table, ()):
            whole = _with(column, (by_id[one] for one in known), schema)
            transaction.execute(_EMPTIED.format(table=table, column=column), [whole])
        for one in _known(transaction, table, known):
            del by_id[one]
    return list(by_id.values())


def _known(transaction: Transaction, table: str, ids: Iterable[bytes]) -> list[bytes]:
    """Those of the ids that the table has."""
    asked = [str(UUID(bytes=one)) for one in ids]
    found = transaction.execute(_KNOWN.format(table=table), [asked])
    return [UUID(row["id"]).bytes for row in found]


def _with(column: str, made: Iterable[rows.Row], schema: pa.Schema) -> list[str]:
    """Ids of the gateway's rows that have something in ``column``.

    An import repeated does not bring back what retention took.
    """
    place, origin = schema.get_field_index(column), schema.get_field_index("origin")
    found = (row for row in made if row[origin] == GATEWAY and row[place] is not None)
    return [str(UUID(bytes=row[0])) for row in found]
