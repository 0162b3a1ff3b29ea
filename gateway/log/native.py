"""The log in one DuckDB file."""

import logging
import shutil
from contextlib import suppress
from pathlib import Path

import duckdb

from gateway.errors import StoreBroken, StoreError, StoreLocked
from gateway.log.cipher import KEY, Keyring
from gateway.log.damage import is_damage, is_headless, is_in_wal, tells_of_damage
from gateway.log.engine import ALIAS, connect, lock_down, make_schema, quoted
from gateway.log.header import mend
from gateway.log.healing import Healing, all_aside, files, put_aside_wal, sync
from gateway.log.salvage import Salvage

logger = logging.getLogger(__name__)

_PROBED = ("spool_segments", "incidents", "edits", "erasures", "erased", "erasure_steps")
"""Small tables that are read at every start: damage there must show at once."""


_FORMAT = (
    "STORAGE_VERSION 'v1.5.0'",
    # A checkpoint writes the last row group anew, and keeps the old one until the next: a quarter
    # of DuckDB's own size halves the work of ingesting, and leaves no holes in the file.
    "ROW_GROUP_SIZE 30720",
)


class DuckFile:
    """A DuckDB file that this process owns, and its healing.

    The file itself is only touched while DuckDB has it closed: POSIX drops every lock that a
    process has on a file as soon as it closes any descriptor of it.
    """

    def __init__(self, path: Path, keys: Keyring | None) -> None:
        self.path = path.absolute()
        self.name = str(path)
        self.disk = self.path.parent
        self._key = keys.database if keys else None
        self._compacted = self.path.with_name(self.path.name + ".compacted")
        self._temporary = self.path.with_name(self.path.name + ".tmp")
        self._healing = Healing(self.path, self._salvage)
        self.disk.mkdir(parents=True, exist_ok=True)

    def open(self) -> duckdb.DuckDBPyConnection:
        """See ``Engine``. Raises StoreBroken also for a healing that was broken off."""
        if self._healing.due:
            raise StoreBroken(f"the healing of {self.name} was broken off")
        connection = self._connect()
        try:
            lock_down(connection, paths=files(self.path) + files(self._compacted))
            self._attach(connection, self.path, ALIAS)
            self._tidy()
            make_schema(connection)
            for table in _PROBED:
                connection.execute(f"SELECT sum(hash(t)) FROM {ALIAS}.{table} t").fetchall()  # noqa: S608
        except duckdb.Error as error:
            connection.close()
            raise self._refusal(str(error)) from error
        return connection

    def damaged(self, message: str) -> bool:
        """See ``Engine``."""
        return tells_of_damage(message)

    def heal(self, damage: str) -> str:
        """See ``Engine``."""
        logger.error("healing %s: %s", self.name, damage)
        if is_in_wal(damage) and not self._healing.due:
            return put_aside_wal(self.path)
        return self._healing.run()

    def compact(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See ``Engine``."""
        self._discard_copy()
        connection.execute(f"CHECKPOINT {ALIAS}")
        size, free = self.path.stat().st_size, shutil.disk_usage(self.disk).free
        if size > free:
            raise StoreError(f"compacting {self.name} may take {size} bytes; {free} are free")
        self._attach(connection, self._compacted, "compacted")
        try:
            connection.execute(f"COPY FROM DATABASE {ALIAS} TO compacted")
            connection.execute("CHECKPOINT compacted")
            _compare(connection)
            connection.execute("DETACH compacted")
        except (duckdb.Error, StoreError):
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            with suppress(duckdb.Error):
                connection.execute("DETACH compacted")
            self._discard_copy()
            raise
        sync(self._compacted)

    def swap(self) -> None:
        """See ``Engine``."""
        if any(file.exists() for file in files(self.path)[1:]):
            raise StoreError(f"{self.name} was written to while it was compacted")
        self._compacted.replace(self.path)
        sync(self.disk)
        for file in all_aside(self.path):
            file.unlink()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return connect(self._temporary, encrypted=self._key is not None)

    def _attach(
        self, connection: duckdb.DuckDBPyConnection, path: Path, alias: str, *options: str
    ) -> None:
        key = [f"ENCRYPTION_KEY {quoted(self._key)}"] if self._key else []
        every = ", ".join([*_FORMAT, *key, *options])
        connection.execute(f"ATTACH {quoted(path)} AS {alias} ({every})")

    def _refusal(self, message: str) -> StoreError:
        """Why the file cannot be opened, and what to do about it."""
        if "Could not set lock" in message or "already attached" in message:
            return StoreLocked(
                f"{self.name} belongs to another process (is `ratchet up` running?); "
                f"stop that, or read through it: {message}"
            )
        if "Wrong encryption key" in message:
            return StoreError(f"{self.name} was encrypted with another key; set {KEY} to that one")
        if "without a key" in message:
            return StoreError(f"{self.name} is encrypted; set {KEY} to its key")
        if "is not encrypted" in message:
            return StoreError(
                f"{self.name} is not encrypted, but {KEY} is set; unset it, or move the file "
                "away and import an export of it"
            )
        if is_damage(message) or is_headless(message, self.path):
            return StoreBroken(f"{self.name} is damaged: {message}")
        return StoreError(f"cannot open {self.name}: {message}")

    def _salvage(self, damaged: Path, new: Path) -> str:
        connection = self._connect()
        try:
            self._attach(connection, new, ALIAS)
            make_schema(connection)
            if self._key is None and damaged.exists():
                mend(damaged, new)
            if not self._attach_damaged(connection, damaged):
                return "nothing could be saved of it"
            salvage = Salvage(connection)
            salvage.run()
            connection.execute(f"CHECKPOINT {ALIAS}")
        except duckdb.Error as error:
            raise StoreError(f"cannot save what is in {damaged}: {error}") from error
        finally:
            connection.close()
        return _told(salvage, damaged)

    def _attach_damaged(self, connection: duckdb.DuckDBPyConnection, damaged: Path) -> bool:
        """Whether the damaged file could be attached, if need be without its write-ahead file."""
        for _ in range(2):
            try:
                self._attach(connection, damaged, "damaged", "READ_ONLY")
            except duckdb.Error as error:
                if not is_in_wal(str(error)):
                    logger.warning("%s cannot be read at all: %s", damaged, error)
                    return False
                put_aside_wal(damaged)
            else:
                return True
        return False

    def _tidy(self) -> None:
        """Remove what a process that died left behind. Called once the file is ours."""
        self._discard_copy()
        for file in self._temporary.glob("duckdb_temp_*"):
            file.unlink()

    def _discard_copy(self) -> None:
        for file in files(self._compacted):
            file.unlink(missing_ok=True)


def _compare(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise StoreError unless the copy has as many rows of everything."""
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ?", [ALIAS]
    ).fetchall()
    for (table,) in tables:
        counts = [
            connection.execute(f"SELECT count(*) FROM {place}.{table}").fetchall()  # noqa: S608
            for place in (ALIAS, "compacted")
        ]
        if counts[0] != counts[1]:
            raise StoreError(f"the compacted copy of {table} lacks rows; it is not used")


def _told(salvage: Salvage, damaged: Path) -> str:
    """What was saved, in a sentence; what was not, in a file beside the damaged one."""
    text = f"{salvage.saved} rows were saved"
    if salvage.lost:
        names = damaged.with_name(damaged.name + ".lost.txt")
        names.write_text("\n".join(salvage.lost) + "\n")
        text += (
            f", {salvage.emptied} of them without a body, and {salvage.gone} were not; "
            f"{names} names them"
        )
    return text
