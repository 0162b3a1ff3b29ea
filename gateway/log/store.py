"""The DuckDB file of the log: one owner, many readers through it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from gateway.errors import BadQuery, StoreError, StoreLocked
from gateway.log.cipher import Keyring

MEMORY_LIMIT = "512MB"


@dataclass(frozen=True, slots=True)
class Offset:
    """How far one spool segment has been ingested, in bytes, and how many rows that added."""

    segment: str
    upto: int
    n_rows: int


class Store:
    """Owns the log's file. One thread appends; any thread may read.

    Raises StoreLocked when another process has the file, StoreError for anything else.
    """

    def __init__(
        self, url: str | Path, *, lake: str | Path | None = None, keys: Keyring | None = None
    ) -> None:
        self.path = path = Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Checkpoint and let go of the file."""
        with self._lock:
            self._connection.close()

    def reopen(self) -> None:
        """Start over from what is durable. The cure for DuckDB's FatalException."""
        with self._lock:
            self._connection.close()
            self._connection = _open(self.path)

    def offsets(self) -> dict[str, int]:
        """How far each segment has been ingested, in bytes."""
        rows = self.rows("SELECT segment, max(upto) AS upto FROM spool_segments GROUP BY segment")
        return {row["segment"]: row["upto"] for row in rows}

    def append(
        self, tables: Mapping[str, pa.Table], offsets: Sequence[Offset], at: datetime
    ) -> None:
        """Add rows and offsets in one transaction: all of it is in the log, or none."""
        segments = pa.Table.from_pylist(
            [{"segment": o.segment, "upto": o.upto, "n_rows": o.n_rows, "ts": at} for o in offsets],
            schema=_SEGMENTS,
        )
        cursor = self._cursor()
        try:
            cursor.execute("BEGIN")
            for name, rows in [*tables.items(), ("spool_segments", segments)]:
                if not rows.num_rows:
                    continue
                cursor.register("batch", rows)
                cursor.execute(f"INSERT INTO {name} BY NAME SELECT * FROM batch")  # noqa: S608
                cursor.unregister("batch")
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            raise StoreError(f"cannot append to {self.path}: {error}") from error
        finally:
            cursor.close()

    def select(self, sql: str) -> pa.Table:
        """The answer to one SELECT somebody typed. Raises BadQuery for anything else."""
        try:
            statements = duckdb.extract_statements(sql)
        except duckdb.Error as error:
            raise BadQuery(str(error)) from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise BadQuery("only a single SELECT is answered")
        return self.table(sql)

    def table(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The answer to a query of ours as an Arrow table. It cannot change the log."""
        cursor = self._cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            answer: pa.Table = cursor.execute(sql, list(parameters)).to_arrow_table()
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            raise BadQuery(str(error)) from error
        finally:
            cursor.close()
        return answer

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The answer to a query of ours, a dict a row."""
        answer: list[dict[str, Any]] = self.table(sql, parameters).to_pylist()
        return answer

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            try:
                cursor = self._connection.cursor()
                cursor.execute("USE log")
            except duckdb.Error as error:
                raise StoreError(f"{self.path} is closed: {error}") from error
        return cursor


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=_CONFIG)
    # Whatever SQL a reader sends, it sees this file and no other.
    allowed = ", ".join(f"'{_quoted(file)}'" for file in _files(path))
    connection.execute(f"SET allowed_paths = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    try:
        connection.execute(f"ATTACH '{_quoted(path)}' AS log (STORAGE_VERSION 'v1.5.0')")
        connection.execute("USE log")
        connection.execute(resources.files("gateway.log").joinpath("schema.sql").read_text())
    except duckdb.Error as error:
        connection.close()
        if "lock" in str(error):
            raise StoreLocked(
                f"{path} belongs to another process (is `ratchet up` running?): {error}"
            ) from error
        raise StoreError(f"cannot open {path}: {error}") from error
    return connection


def _files(path: Path) -> list[Path]:
    """The file and those that DuckDB makes beside it, by the names in its source."""
    beside = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
    return [path.with_name(path.name + suffix) for suffix in beside]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": MEMORY_LIMIT,
    "threads": 2,
    "checkpoint_threshold": "16MB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

_SEGMENTS = pa.schema(
    [
        ("segment", pa.string()),
        ("upto", pa.int64()),
        ("n_rows", pa.int32()),
        ("ts", pa.timestamp("us")),
    ]
)
