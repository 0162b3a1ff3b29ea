"""What the log needs of DuckDB, whichever way the data lies: one file, or a DuckLake."""

import hashlib
import os
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import duckdb

from gateway.errors import StoreError

ALIAS = "log"
"""The name under which every connection finds the log."""

_Config = dict[str, str | bool | int | float | list[str]]
_CONFIG: _Config = {
    "memory_limit": "512MB",
    # Each checkpoint writes the last, partial row group anew: with 16 MB that is half the work of
    # ingesting, and a third more file. Reading 64 MB of WAL at a start takes 0.2 s.
    "checkpoint_threshold": "64MB",
    # A checkpoint would merge small row groups, and write more of them anew the longer the log is:
    # half the work of ingesting at a million rows. Compaction merges them all.
    "max_vacuum_tasks": 0,
    "max_temp_directory_size": "8GB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}


class Engine(Protocol):
    """Opens the log, and shrinks it to what it holds."""

    @property
    def name(self) -> str:
        """Where the log is, for messages; without passwords."""
        ...

    @property
    def disk(self) -> Path:
        """A folder on the disk that the log fills."""
        ...

    def open(self) -> duckdb.DuckDBPyConnection:
        """A locked-down connection with the log attached as ``log`` and every table there.

        Raises StoreLocked, StoreBroken when it is damaged, StoreError.
        """
        ...

    def damaged(self, message: str, /) -> bool:
        """Whether DuckDB's message says that bytes on disk are not what was written."""
        ...

    def heal(self, damage: str) -> str:
        """Put what is damaged aside and save what can be read; what was done, in a sentence.

        ``damage`` is the message that told of it. Nothing of the log is open. Raises StoreError
        when there is no room, and can be repeated.
        """
        ...

    def compact(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the log without what no query sees, while readers go on and nobody writes."""
        ...

    def swap(self) -> None:
        """Put in place what ``compact`` prepared. Nothing of the log is open."""
        ...


def connect(
    temporary: Path, *extensions: str, encrypted: bool = False
) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, with extensions from their Python packages, not locked down yet.

    What does not fit into memory goes to files in ``temporary``, encrypted like the rest.
    """
    here: _Config = {
        "temp_directory": str(temporary),
        "temp_file_encryption": encrypted,
        # On a single core a second thread only spins while the first one works.
        "threads": min(2, len(os.sched_getaffinity(0))),
    }
    connection = duckdb.connect(":memory:", config=_CONFIG | here)
    try:
        for extension in (*extensions, *(("httpfs",) if encrypted else ())):
            connection.execute(f"LOAD {quoted(_extension(extension))}")
    except duckdb.Error as error:
        connection.close()
        raise StoreError(f"DuckDB cannot load its extension: {error}") from error
    except StoreError:
        connection.close()
        raise
    return connection


def lock_down(
    connection: duckdb.DuckDBPyConnection,
    *,
    paths: tuple[Path, ...] = (),
    directories: tuple[str, ...] = (),
) -> None:
    """From here on no SQL reaches other files, and none changes a setting."""
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, paths))}]")
    connection.execute(f"SET allowed_directories = [{', '.join(map(quoted, directories))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def make_schema(connection: duckdb.DuckDBPyConnection, *, compressed: bool = True) -> None:
    """Make every table and view, where missing. Writes nothing when they are there.

    A full disk is thus no reason not to start.
    """
    statements = resources.files("gateway.log").joinpath("schema.sql").read_text()
    version = hashlib.sha256(statements.encode()).hexdigest()
    connection.execute(f"USE {ALIAS}")
    made = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND comment = ?", [ALIAS, version]
    ).fetchall()
    if made:
        return
    if not compressed:
        statements = statements.replace(" USING COMPRESSION zstd", "")
    comment = f"COMMENT ON TABLE spool_segments IS '{version}'"
    connection.execute(f"BEGIN; {statements}; {comment}; COMMIT")


def quoted(text: object) -> str:
    """An SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def _extension(name: str) -> Path:
    """Where the package of an extension keeps it. Raises StoreError, which names the package."""
    package = find_spec(f"duckdb_extension_{name}")
    places = package.submodule_search_locations if package else None
    for place in places or ():
        for file in Path(place).glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"):
            return file
    wheel = f"duckdb-extension-{name.replace('_', '-')}"
    raise StoreError(
        f"DuckDB's extension {name} is missing: pip install {wheel}=={duckdb.__version__}"
    )
