"""The log: one owner, many readers through it. Where it lies is its URL's business."""

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from gateway.errors import BadQuery, StoreBroken, StoreError
from gateway.log.cipher import Keyring
from gateway.log.ducklake import POSTGRES, SQLITE, DuckLake
from gateway.log.engine import Engine
from gateway.log.native import DuckFile
from gateway.log.session import Session
from gateway.log.statement import check
from gateway.log.transaction import Transaction

__all__ = ["Offset", "Store", "Transaction"]

HEALINGS = 3
"""The write-ahead file, the file, and what an earlier process left half done."""
PATIENCE_S = 30.0
"""How long compaction waits for readers before it takes their cursors away."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far one spool segment has been ingested, in bytes, and how many rows that added."""

    segment: str
    upto: int
    n_rows: int


class Store:
    """Owns the log. One transaction at a time; any thread may read.

    ``url`` is a file, ``ducklake:sqlite:FILE`` or ``ducklake:postgres:DSN``; a DuckLake keeps
    its Parquet in ``lake``. With ``keys`` everything on disk is encrypted.

    Raises StoreLocked when another process has the file, StoreBroken when DuckDB gave up on it
    (``reopen`` is the cure, and ``broken`` says that one is due), StoreError for anything else.
    """

    def __init__(
        self, url: str | Path, *, lake: str | Path | None = None, keys: Keyring | None = None
    ) -> None:
        self._engine = _engine(str(url), lake, keys)
        self._writing = threading.Lock()
        self._state = threading.Condition()
        self._sessions: set[Session] = set()
        self._healed: list[str] = []
        self._broken = False
        self._damage: str | None = None
        self._connection: duckdb.DuckDBPyConnection | None = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Where the log lies, for messages; without passwords."""
        return self._engine.name

    @property
    def broken(self) -> bool:
        """Whether DuckDB gave up, in whatever thread: nothing works before ``reopen``."""
        return self._broken

    def take_healed(self) -> tuple[str, ...]:
        """What had to be put aside or could not be saved since this was last asked.

        Rows may be missing then that were ingested before: what is kept of the spool has to be
        ingested again, leaving out ids that are there.
        """
        with self._state:
            healed, self._healed = tuple(self._healed), []
        return healed

    def free(self) -> int:
        """Free bytes of the disk that the log fills."""
        return shutil.disk_usage(self._engine.disk).free

    def close(self) -> None:
        """Checkpoint and let go of the log. Whoever still reads gets a StoreError."""
        with self._state:
            self._shut()

    def reopen(self) -> None:
        """Start over from what is durable; damage found before is healed on the way.

        The cure for StoreBroken. Running reads and transactions fail with StoreError.
        """
        with self._state:
            self._shut()
            self._connection = self._opened()

    def checkpoint(self) -> None:
        """Write everything committed into its final place. Waits for the running transaction."""
        with self._writing, self._reading("cannot checkpoint") as cursor:
            cursor.execute("CHECKPOINT log")

    def compact(self) -> None:
        """Remove physically what has been deleted. Writers wait; readers only for the swap.

        A reader that is still at it half a minute later gets a StoreError. What was put aside as
        damaged goes, too. Raises StoreError; the log is then as it was.
        """
        with self._writing:
            with self._reading("cannot compact") as cursor:
                self._engine.compact(cursor)
            with self._state:
                self._state.wait_for(lambda: not self._sessions, timeout=PATIENCE_S)
                if self._connection is None:  # closed meanwhile: it may be somebody else's now
                    raise StoreError(f"{self._engine.name} is closed")
                self._shut()
                try:
                    self._engine.swap()
                except OSError as error:
                    raise StoreError(f"cannot compact {self._engine.name}: {error}") from error
                finally:
                    self._connection = self._opened()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All that is done in it is in the log at its end, or nothing, when it raises."""
        with self._writing, self._session() as session, Transaction.of(session) as transaction:
            yield transaction

    def append(
        self, tables: Mapping[str, pa.Table], offsets: Sequence[Offset], at: datetime
    ) -> None:
        """Add rows and offsets in one transaction: all of it is in the log, or none."""
        segments = pa.Table.from_pylist(
            [{"segment": o.segment, "upto": o.upto, "n_rows": o.n_rows, "ts": at} for o in offsets],
            schema=_SEGMENTS,
        )
        with self.transaction() as transaction:
            for name, rows in [*tables.items(), ("spool_segments", segments)]:
                if rows.num_rows:
                    transaction.insert(name, rows)

    def offsets(self) -> dict[str, int]:
        """How far each segment has been ingested, in bytes."""
        rows = self.rows("SELECT segment, max(upto) AS upto FROM spool_segments GROUP BY segment")
        return {row["segment"]: row["upto"] for row in rows}

    def select(self, sql: str) -> pa.Table:
        """The answer to one SELECT somebody typed. Raises BadQuery for anything else."""
        with self._reading("", BadQuery) as cursor:
            check(sql, cursor)
        return self.table(sql)

    def select_batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The same as ``batches``. Raises BadQuery before the first for anything else."""
        with self._reading("", BadQuery) as cursor:
            check(sql, cursor)
        return self.batches(sql)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The answer to a query of ours, a dict a row."""
        answer: list[dict[str, Any]] = self.table(sql, parameters).to_pylist()
        return answer

    def table(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The answer to a query of ours as an Arrow table. It cannot change the log."""
        with self._reading("", BadQuery) as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            answer: pa.Table = cursor.execute(sql, list(parameters)).to_arrow_table()
            return answer

    def batches(
        self, sql: str, parameters: Sequence[Any] = (), *, rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """The answer to a query of ours, ``rows`` at a time, of one moment of the log.

        There is at least one batch, so that its columns are known. Memory stays constant, unless
        the query itself sorts or groups. Raises StoreError in between when the log is reopened
        or compacted meanwhile.
        """
        with self._session() as session:
            with session.work("", BadQuery) as cursor:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                answer = cursor.execute(sql, list(parameters))
                reader = session.reader = answer.to_arrow_reader(rows)
            is_first = True
            while True:
                with session.work("", BadQuery):
                    batch = next(reader, None)
                if batch is None:
                    break
                is_first = False
                yield batch
            if is_first:
                yield pa.RecordBatch.from_pylist([], schema=reader.schema)

    @contextmanager
    def _reading(
        self, what: str, refused: type[StoreError] = StoreError
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._session() as session, session.work(what, refused) as cursor:
            yield cursor

    def _opened(self) -> duckdb.DuckDBPyConnection:
        """Open the log, healed as often as it takes: its write-ahead file, and itself."""
        for _ in range(HEALINGS):
            if self._damage is not None:
                self._healed.append(self._engine.heal(self._damage))
                self._damage = None
            try:
                connection = self._engine.open()
            except StoreBroken as error:
                self._damage = str(error)
            else:
                self._broken = False
                return connection
        raise StoreError(f"{self._engine.name} cannot be healed: {self._damage}")

    def _broke(self, message: str, is_damage: bool) -> None:  # noqa: FBT001 - a callback
        self._broken = True
        if is_damage:
            self._damage = message

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._state:
            if self._connection is None:
                raise StoreError(f"{self._engine.name} is closed")
            session = Session(self._connection, self._engine, self._broke)
            self._sessions.add(session)
        try:
            yield session
        finally:
            session.end()
            with self._state:
                self._sessions.discard(session)
                self._state.notify_all()

    def _shut(self) -> None:
        for session in tuple(self._sessions):
            session.end()
        self._sessions.clear()
        self._state.notify_all()
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _engine(url: str, lake: str | Path | None, keys: Keyring | None) -> Engine:
    if not url.startswith("ducklake:"):
        return DuckFile(Path(url), keys)
    if not url.startswith((SQLITE, POSTGRES)) or lake is None:
        raise StoreError(
            f"{url.split(':', 1)[0]} needs a place for its Parquet, and a catalog: "
            f"{SQLITE}FILE or {POSTGRES}DSN"
        )
    return DuckLake(url, str(lake), keys)


_SEGMENTS = pa.schema(
    [
        ("segment", pa.string()),
        ("upto", pa.int64()),
        ("n_rows", pa.int32()),
        ("ts", pa.timestamp("us")),
    ]
)
