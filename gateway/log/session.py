"""A reader's or writer's cursor, which the store can take away."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import duckdb
import pyarrow as pa

from gateway.errors import StoreBroken, StoreError
from gateway.log.damage import gave_up
from gateway.log.engine import ALIAS, Engine

_AGAIN_S = 0.05


class Session:
    """One cursor. Its owner uses it in one thread; any thread may end it.

    DuckDB lets go of a file only when every cursor is closed, and a cursor must not be closed
    while another thread is inside it: hence the lock around each use.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        engine: Engine,
        broke: Callable[[str, bool], None],
    ) -> None:
        self.reader: pa.RecordBatchReader | None = None
        """The answer being streamed; it holds on to the file as a cursor does."""
        self._cursor = connection.cursor()
        self._engine = engine
        self._broke = broke
        self._in_use = threading.Lock()
        self._is_fresh = True
        self._has_ended = False

    @contextmanager
    def work(
        self, what: str, refused: type[StoreError] = StoreError
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """The cursor, and DuckDB's errors as ours: ``refused``, where the statement is to blame.

        StoreBroken is told to the store, too, and whether it is because of damage.
        """
        try:
            with self._in_use:
                if self._has_ended:
                    raise StoreError("the log was reopened in between; ask again")
                if self._is_fresh:
                    self._cursor.execute(f"USE {ALIAS}")
                    self._is_fresh = False
                yield self._cursor
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            # OSError: so Arrow's reader passes on that DuckDB could not read.
            message = f"{what}: {error}" if what else str(error)
            is_damage = self._engine.damaged(message)
            if is_damage or gave_up(error):
                self._broke(message, is_damage)
                raise StoreBroken(f"{self._engine.name}: {message}") from error
            if isinstance(error, duckdb.InterruptException):
                raise StoreError("the log was reopened in between; ask again") from error
            raise refused(message) from error

    def end(self) -> None:
        """Stop what runs in it, and close it. Uncommitted work is rolled back."""
        # An interrupt between two statements is lost on the second one.
        while not self._in_use.acquire(timeout=_AGAIN_S):
            with suppress(duckdb.Error):
                self._cursor.interrupt()
        try:
            self._has_ended = True
            if self.reader is not None:
                self.reader.close()
            with suppress(duckdb.Error):
                self._cursor.close()
        finally:
            self._in_use.release()
