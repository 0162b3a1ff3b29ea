"""Saves what can be read of a damaged DuckDB file into a new one."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb

from gateway.log.damage import is_damage

ROW_GROUP = 122_880
VECTOR = 2_048
"""Rows that DuckDB reads together at least: no use in asking for fewer."""

_BODIES = {"invocations": ("request", "response"), "feedback": ("explanation", "value")}
"""The bulk of a file, and nullable: a row is worth keeping without them."""
_NESTED = ("invocations", "feedback", "edits")
_NOT_SAVED = ("spool_segments",)
"""With the offsets gone, whatever the spool still keeps is ingested again, without doubling."""


@dataclass(slots=True)
class Salvage:
    """What has been saved of the database attached as ``damaged`` into the one as ``log``."""

    connection: duckdb.DuckDBPyConnection
    saved: int = 0
    gone: int = 0
    emptied: int = 0
    """Rows saved without a body."""
    lost: list[str] = field(default_factory=list)
    """The rows, or ranges of them, that are gone or lack a body: by id where it can be read."""

    def run(self) -> None:
        """Copy table by table. Raises duckdb.Error for anything but damage: a full disk, say."""
        tables = self.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'damaged' "
            "INTERSECT SELECT table_name FROM duckdb_tables() WHERE database_name = 'log'"
        ).fetchall()
        for (table,) in sorted(tables):
            if table not in _NOT_SAVED:
                self._table(table)

    def _table(self, table: str) -> None:
        try:
            [(last,)] = self.connection.execute(
                f"SELECT max(rowid) FROM damaged.{table}"  # noqa: S608
            ).fetchall()
        except duckdb.Error as error:
            self._give_up(error, f"{table}: all rows")
            return
        for start in range(0, 0 if last is None else last + 1, ROW_GROUP):
            self._range(table, start, min(start + ROW_GROUP, last + 1))

    def _range(self, table: str, start: int, stop: int) -> None:
        """Copy rows ``start`` to ``stop``: all, by halves, or without a body."""
        if self._copied(table, start, stop):
            return
        if stop - start > VECTOR:
            middle = start + max(1, (stop - start) // VECTOR // 2) * VECTOR
            self._range(table, start, middle)
            self._range(table, middle, stop)
            return
        low, high = self._edges(table, start, stop)
        for whole in ((start, low), (high, stop)):
            if whole[0] < whole[1]:
                self._copied(table, *whole)
        if low < high:
            self._poor(table, low, high)

    def _edges(self, table: str, start: int, stop: int) -> tuple[int, int]:
        """The unreadable rows: a row group, and so its damage, may begin or end among these."""
        low, high = start, stop
        if self._reads(table, start, start + 1):
            upto = range(start + 1, stop + 1)
            low += bisect_left(upto, x=True, key=lambda end: not self._reads(table, start, end))
        if low < stop and self._reads(table, stop - 1, stop):
            starts = range(low, stop)
            high = low + bisect_left(
                starts, x=True, key=lambda begin: self._reads(table, begin, stop)
            )
        return low, high

    def _reads(self, table: str, start: int, stop: int) -> bool:
        try:
            between = self._ids(table, start, stop)
            self.connection.execute(
                f"SELECT sum(hash(t)) FROM damaged.{table} t "  # noqa: S608
                f"WHERE rowid >= ? AND rowid < ? {between}",
                [start, stop],
            ).fetchall()
        except duckdb.Error as error:
            if not is_damage(str(error)):
                raise
            return False
        return True

    def _poor(self, table: str, start: int, stop: int) -> None:
        """Copy rows without a body, or name them as lost."""
        for columns in _without(table):
            if self._copied(table, start, stop, columns):
                self.emptied += stop - start
                self._name(table, start, stop, f"without {' and '.join(columns)}")
                return
        self.gone += stop - start
        self._name(table, start, stop, "lost")

    def _copied(self, table: str, start: int, stop: int, empty: tuple[str, ...] = ()) -> bool:
        columns = f"* REPLACE ({', '.join(f'NULL AS {c}' for c in empty)})" if empty else "*"
        try:
            # Of a nested column DuckDB reads a part in every row group that the ids do not
            # exclude, whatever the rowids do: it would come upon the damage of others.
            between = self._ids(table, start, stop)
            [(count,)] = self.connection.execute(
                f"INSERT INTO log.{table} BY NAME SELECT {columns} FROM damaged.{table} "  # noqa: S608
                f"WHERE rowid >= ? AND rowid < ? {between}",
                [start, stop],
            ).fetchall()
        except duckdb.Error as error:
            if not is_damage(str(error)):
                raise
            return False
        self.saved += count
        return True

    def _ids(self, table: str, start: int, stop: int) -> str:
        """The range of the rows' ids, as a condition; deleted rows have none."""
        if table not in _NESTED:
            return ""
        [(least, most)] = self.connection.execute(
            f"SELECT min(id), max(id) FROM damaged.{table} WHERE rowid >= ? AND rowid < ?",  # noqa: S608
            [start, stop],
        ).fetchall()
        return (
            "AND false" if least is None else f"AND id BETWEEN '{least}'::UUID AND '{most}'::UUID"
        )

    def _name(self, table: str, start: int, stop: int, fate: str) -> None:
        try:
            ids = self.connection.execute(
                f"SELECT id FROM damaged.{table} WHERE rowid >= ? AND rowid < ?",  # noqa: S608
                [start, stop],
            ).fetchall()
        except duckdb.Error:
            self.lost.append(f"{table} {fate}: rows {start} to {stop - 1}")
        else:
            self.lost.extend(f"{table} {fate}: {one}" for (one,) in ids)

    def _give_up(self, error: duckdb.Error, what: str) -> None:
        if not is_damage(str(error)):
            raise error
        self.lost.append(what)


def _without(table: str) -> Iterator[tuple[str, ...]]:
    bodies = _BODIES.get(table, ())
    yield from ((column,) for column in bodies)
    if bodies:
        yield bodies
