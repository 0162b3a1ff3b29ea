"""What the log needs of DuckDB, whichever way the data lies: one file, or a DuckLake."""

from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import duckdb

from gateway.errors import StoreError

ALIAS = "log"
"""The name under which every connection finds the log."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "512MB",
    "threads": 2,
    "checkpoint_threshold": "16MB",
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

    def damaged(self, message: str) -> bool:
        """Whether DuckDB's message says that bytes on disk are not what was written."""
        ...

    def heal(self) -> str:
        """Put what is damaged aside and save what can be read; what was done, in a sentence.

        Nothing of the log is open. Raises StoreError when there is no room, and can be repeated.
        """
        ...

    def compact(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the log without what no query sees, while readers go on and nobody writes."""
        ...

    def swap(self) -> None:
        """Put in place what ``compact`` prepared. Nothing of the log is open."""
        ...


def connect(
    *, extensions: tuple[str, ...] = (), settings: Mapping[str, str | bool] | None = None
) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, with extensions from their Python packages, not locked down yet."""
    connection = duckdb.connect(":memory:", config=_CONFIG | dict(settings or {}))
    try:
        for extension in extensions:
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


def schema() -> str:
    """The statements that make every table and view, where missing."""
    return resources.files("gateway.log").joinpath("schema.sql").read_text()


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
