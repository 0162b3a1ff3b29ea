"""The change counter that spares readers from reading."""

import threading
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from serving.database import create_tables, write
from serving.registry.tables import METADATA, routing_clock

_ONLY = 1


def start_clock(engine: sa.Engine) -> None:
    """Make the counter exist, and its table; several processes may do so at once."""
    create_tables(engine, METADATA)
    # Of several first processes one inserts it.
    with suppress(IntegrityError), write(engine) as connection:
        if connection.execute(sa.select(routing_clock.c.id)).one_or_none() is None:
            connection.execute(routing_clock.insert().values(id=_ONLY, version=1))


def touch(connection: Connection) -> None:
    """Tell readers, in the transaction that changes something they use."""
    connection.execute(routing_clock.update().values(version=routing_clock.c.version + 1))


def read_clock(connection: Connection) -> int:
    """The counter inside a transaction."""
    return int(connection.execute(sa.select(routing_clock.c.version)).scalar_one())


class RoutingClock:
    """Reads the counter as cheaply as the database allows; usable from several threads.

    SQLite tells in microseconds whether any other connection wrote since this one last
    looked, so the counter itself is read only then.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._seen: Any = None
        self._version = 0

    def version(self) -> int:
        """The counter now."""
        with self._lock:
            connection = self._open()
            if self._engine.dialect.name != "sqlite":
                with connection.begin():
                    return read_clock(connection)
            cursor = connection.connection.cursor()
            try:
                cursor.execute("PRAGMA data_version")
                seen = cursor.fetchone()
                if seen != self._seen:
                    cursor.execute("SELECT version FROM routing_clock")
                    row = cursor.fetchone()
                    self._version = int(row[0]) if row else 0
                    self._seen = seen
            finally:
                cursor.close()
            return self._version

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._seen = None

    def _open(self) -> Connection:
        # Kept open: SQLite's change counter is only meaningful on one and the same connection.
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection
