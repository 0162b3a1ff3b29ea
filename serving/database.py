"""One database URL for all state: how it is opened, read and written.

Each package keeps its own tables in it. SQLite (WAL) on one machine, Postgres on many;
nothing above this module knows which.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from serving.errors import DatabaseUnusable

BUSY_TIMEOUT_MS = 15_000
"""How long a writer waits for another process's transaction before it gives up."""

_TABLES_LOCK = 0x52415443
"""Key of the Postgres advisory lock that serialises the creation of tables."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC time. A naive one is refused, so a local time is never stored by accident."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open_database(url: str) -> Engine:
    """Connections to ``url``; for SQLite the file's folder is made and WAL switched on.

    Writes are synced to the disk before a commit returns: an alias never moves on a
    verdict that a power cut takes back. Raises DatabaseUnusable without a driver, SQLAlchemyError
    for a URL that is none.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _open_server(parsed)
    if parsed.database in (None, "", ":memory:"):
        raise ValueError("the state needs a file: several processes share it")
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def create_tables(engine: Engine, metadata: sa.MetaData) -> None:
    """Create what is missing of ``metadata``; safe when several processes start at once.

    Tables of an earlier release get the columns that they lack. A column added later
    is nullable or has a server default, so that the rows, and writers, of before still fit.
    """
    with write(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))
        known = set(sa.inspect(connection).get_table_names())
        metadata.create_all(connection)
        for table in metadata.sorted_tables:
            if table.name in known:
                _complete(connection, table)


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the database."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """One transaction; committed at the end, rolled back on an exception.

    On SQLite the write lock is taken at the start, so what is read inside stays true.
    """
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _open_server(url: sa.URL) -> Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise DatabaseUnusable(
            f"{url.render_as_string()} needs a driver that is not installed: "
            f"pip install {error.name}"
        ) from error


def _complete(connection: Connection, table: sa.Table) -> None:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    quoted = connection.dialect.identifier_preparer.format_table(table)
    for column in table.columns:
        if column.name not in there:
            what = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {what}")


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None  # the driver opens no transactions; `begin` does
    cursor: Any = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """The busy timeout does not cover this switch: of several first openers, some retry."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
