"""The log in one DuckDB file."""

import os
from pathlib import Path

import duckdb

from gateway.errors import StoreError, StoreLocked
from gateway.log.cipher import Keyring
from gateway.log.engine import ALIAS, connect, lock_down, quoted, schema


class DuckFile:
    """A DuckDB file that this process owns."""

    def __init__(self, path: Path, keys: Keyring | None) -> None:
        self.path = path.absolute()
        self.name = str(path)
        self.disk = self.path.parent
        self._keys = keys
        self._compacted = path.with_name(path.name + ".compacted")
        self.disk.mkdir(parents=True, exist_ok=True)

    def open(self) -> duckdb.DuckDBPyConnection:
        """See ``Engine``."""
        connection = connect()
        try:
            lock_down(connection, paths=_files(self.path) + _files(self._compacted))
            self._attach(connection, self.path, ALIAS)
            connection.execute(f"USE {ALIAS}")
            connection.execute(schema())
        except duckdb.Error as error:
            connection.close()
            if "lock" in str(error):
                raise StoreLocked(
                    f"{self.name} belongs to another process (is `ratchet up` running?): {error}"
                ) from error
            raise StoreError(f"cannot open {self.name}: {error}") from error
        return connection

    def damaged(self, message: str) -> bool:
        """See ``Engine``."""
        return False

    def heal(self) -> str:
        """See ``Engine``."""
        raise StoreError("not yet")

    def compact(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See ``Engine``."""
        self._discard_copy()
        connection.execute(f"CHECKPOINT {ALIAS}")
        self._attach(connection, self._compacted, "compacted")
        connection.execute(f"COPY FROM DATABASE {ALIAS} TO compacted")
        connection.execute("CHECKPOINT compacted")
        connection.execute("DETACH compacted")

    def swap(self) -> None:
        """See ``Engine``."""
        with self._compacted.open("rb") as file:
            os.fsync(file.fileno())
        self._compacted.replace(self.path)

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path, alias: str) -> None:
        connection.execute(f"ATTACH {quoted(path)} AS {alias} (STORAGE_VERSION 'v1.5.0')")

    def _discard_copy(self) -> None:
        for file in _files(self._compacted):
            file.unlink(missing_ok=True)


def _files(path: Path) -> tuple[Path, ...]:
    """The file and those that DuckDB makes beside it, by the names in its source."""
    beside = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
    return tuple(path.with_name(path.name + suffix) for suffix in beside)
