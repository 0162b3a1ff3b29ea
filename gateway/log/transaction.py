"""What one transaction of the log does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import pyarrow as pa

from gateway.errors import StoreError
from gateway.log.session import Session


class Transaction:
    """A transaction that is under way. Made by ``Store.transaction``, which commits it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def insert(self, table: str, rows: pa.Table) -> None:
        """Add rows; columns go by name, those missing are NULL."""
        with self._session.work(f"cannot add to {table}") as cursor:
            cursor.register("batch", rows)
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")  # noqa: S608
            cursor.unregister("batch")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run one statement of ours; its rows, a dict each."""
        with self._session.work("a statement failed") as cursor:
            answer = cursor.execute(sql, list(parameters))
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    @classmethod
    @contextmanager
    def of(cls, session: Session) -> Iterator[Self]:
        """Begin one; commit it at the end, or roll it back when anything is raised."""
        with session.work("cannot begin") as cursor:
            cursor.execute("BEGIN")
        try:
            yield cls(session)
            with session.work("cannot commit") as cursor:
                cursor.execute("COMMIT")
        except BaseException:
            with suppress(StoreError), session.work("cannot roll back") as cursor:
                cursor.execute("ROLLBACK")
            raise
