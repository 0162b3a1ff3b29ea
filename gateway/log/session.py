"""A reader's or writer's cursor, which the store can take away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa

from gateway.errors import StoreError
from gateway.log.engine import ALIAS


class Session:
    """One cursor. Its owner uses it in one thread; any thread may end it.

    DuckDB lets go of a file only when every cursor is closed, and a cursor must not be closed
    while another thread is inside it: hence the lock around each use.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._cursor = connection.cursor()
        self._in_use = threading.Lock()
        self._ended = False
        self._fresh = True
        self.reader: pa.RecordBatchReader | None = None
        """The answer being streamed; it holds on to the file as a cursor does."""

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The cursor. Raises StoreError once the session has been ended by another thread."""
        with self._in_use:
            if self._ended:
                raise StoreError("the log was reopened in between; ask again")
            if self._fresh:
                self._cursor.execute(f"USE {ALIAS}")
                self._fresh = False
            yield self._cursor

    def end(self) -> None:
        """Stop what runs in it, and close it. Uncommitted work is rolled back."""
        with suppress(duckdb.Error):
            self._cursor.interrupt()
        with self._in_use:
            self._ended = True
            if self.reader is not None:
                self.reader.close()
            with suppress(duckdb.Error):
                self._cursor.close()
