"""The log as a DuckLake: a catalog in SQLite or Postgres, and Parquet files."""

import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import duckdb

from gateway.errors import StoreError
from gateway.log.cipher import KEY, Keyring
from gateway.log.engine import ALIAS, connect, lock_down, make_schema, quoted

SQLITE = "ducklake:sqlite:"
POSTGRES = "ducklake:postgres:"


class DuckLake:
    """A DuckLake. Several hosts may ingest into one on Postgres; one of them compacts.

    With keys its Parquet is encrypted, each file by a key of its own. The catalog holds those
    keys, and the least and greatest text of each column: who reads the catalog reads the log.
    """

    def __init__(self, url: str, lake: str, keys: Keyring | None) -> None:
        self.name = _PASSWORD.sub("***", url)
        self._url = url
        self._lake = lake.rstrip("/") + "/"
        self._encrypted = keys is not None
        self._remote = "://" in lake
        self.disk = Path(tempfile.gettempdir() if self._remote else lake).absolute()
        self._temporary = self.disk.with_name(f"{self.disk.name}.tmp")
        self.disk.mkdir(parents=True, exist_ok=True)
        if self._catalog is not None:
            self._catalog.parent.mkdir(parents=True, exist_ok=True)
            # Or else who reads for long keeps others from committing.
            self._in_sqlite("PRAGMA journal_mode = WAL")

    @property
    def _catalog(self) -> Path | None:
        """The catalog's file, where it is one."""
        return Path(self._url.removeprefix(SQLITE)) if self._url.startswith(SQLITE) else None

    def open(self) -> duckdb.DuckDBPyConnection:
        """See ``Engine``."""
        connection = self._connect()
        try:
            lock_down(connection, directories=(self._lake,))
            make_schema(connection, compressed=False)
        except duckdb.Error as error:
            connection.close()
            raise self._refusal(error) from error
        return connection

    def damaged(self, _message: str) -> bool:
        """See ``Engine``: nothing of a lake is healed here. Catalog and Parquet have backups."""
        return False

    def heal(self, damage: str) -> str:
        """See ``Engine``."""
        raise StoreError(f"{self.name} is damaged: {damage}")

    def compact(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See ``Engine``. Nobody deletes meanwhile: a merge would bring the rows back."""
        connection.execute(f"CALL ducklake_rewrite_data_files('{ALIAS}', delete_threshold => 0)")
        connection.execute(f"CALL ducklake_merge_adjacent_files('{ALIAS}')")

    def swap(self) -> None:
        """See ``Engine``. Files that only the past needs are removed, and the past with them."""
        connection = self._connect()
        try:
            connection.execute(f"CALL ducklake_expire_snapshots('{ALIAS}', older_than => now())")
            connection.execute(f"CALL ducklake_cleanup_old_files('{ALIAS}', cleanup_all => true)")
            connection.execute(f"CALL ducklake_delete_orphaned_files('{ALIAS}', {self._orphans})")
            # The least and the greatest text of each column, of rows long gone as well.
            connection.execute(
                f"UPDATE {_CATALOG}.ducklake_table_column_stats SET min_value = NULL, "  # noqa: S608
                "max_value = NULL WHERE column_id IN (SELECT column_id FROM "
                f"{_CATALOG}.ducklake_column WHERE column_type IN ('varchar', 'json'))"
            )
        except duckdb.Error as error:
            raise self._refusal(error) from error
        finally:
            connection.close()
        self._in_sqlite("VACUUM")

    @property
    def _orphans(self) -> str:
        """Which files that no snapshot names are nobody's: one that just writes them may commit."""
        alone = self._catalog is not None
        return "cleanup_all => true" if alone else "older_than => now() - INTERVAL 1 DAY"

    def _in_sqlite(self, statement: str) -> None:
        """Only while DuckDB has the catalog closed: closing it here drops that one's locks."""
        if self._catalog is None:
            return
        try:
            with closing(sqlite3.connect(self._catalog)) as catalog:
                catalog.execute(statement)
        except sqlite3.Error as error:
            raise StoreError(f"{self.name}: {error}") from error

    def _connect(self) -> duckdb.DuckDBPyConnection:
        scanner = "postgres_scanner" if self._catalog is None else "sqlite_scanner"
        remote = ("httpfs",) if self._remote else ()
        connection = connect(
            self._temporary, "ducklake", scanner, *remote, encrypted=self._encrypted
        )
        # Attached before the lock-down: after it, Postgres could not be.
        options = [f"DATA_PATH {quoted(self._lake)}", "DATA_INLINING_ROW_LIMIT 0"]
        options += ["ENCRYPTED"] if self._encrypted else []
        try:
            connection.execute(f"ATTACH {quoted(self._url)} AS {ALIAS} ({', '.join(options)})")
            self._check_encryption(connection)
            connection.execute(f"CALL {ALIAS}.set_option('parquet_compression', 'zstd')")
        except duckdb.Error as error:
            connection.close()
            raise self._refusal(error) from error
        except StoreError:
            connection.close()
            raise
        return connection

    def _check_encryption(self, connection: duckdb.DuckDBPyConnection) -> None:
        [(value,)] = connection.execute(
            f"SELECT value FROM ducklake_options('{ALIAS}') WHERE option_name = 'encrypted'"  # noqa: S608
        ).fetchall()
        if value == "true" and not self._encrypted:
            raise StoreError(f"{self.name} is encrypted; set {KEY}")

    def _refusal(self, error: duckdb.Error) -> StoreError:
        if "not encrypted but" in str(error):
            return StoreError(
                f"{self.name} is not encrypted, but {KEY} is set; unset it, or name a new lake "
                "and import an export of this one"
            )
        message = str(error).replace(self._url.removeprefix(POSTGRES), self.name)
        return StoreError(f"cannot open {self.name}: {message}")


_PASSWORD = re.compile(r"(?<=password=)('(\\.|[^'])*'|[^\s&]+)|(?<=:)(?<!//)[^@/\s]+(?=@)")
_CATALOG = f"__ducklake_metadata_{ALIAS}"
