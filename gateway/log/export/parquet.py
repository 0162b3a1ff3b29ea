"""Frozen datasets: a folder of Parquet that holds whole rows of the log, and its manifest.

For anything that must not hold the log's file. ``import_.parquet`` reads it back without loss.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.errors import ImportFailed
from gateway.log import rows
from gateway.log.export.selection import Selection, Source
from gateway.log.filter import Condition

MANIFEST: Final = "manifest.json"
"""Written last: a folder without it is not whole."""
FORMAT: Final = "ratchet log export 1"

TABLES: Final = {
    name: pa.schema(
        [(one.name, pa.string() if one.type == pa.uuid() else one.type) for one in kind]
    )
    for name, kind in (
        ("invocations", rows.INVOCATIONS),
        ("feedback", rows.FEEDBACK),
        ("edits", rows.EDITS),
    )
}
"""As in the log, but ids are text, as everything that reads Parquet takes that."""


def write(source: Source, selection: Selection, folder: Path, at: datetime) -> dict[str, int]:
    """Export the selected invocations, what was said of them and how they were edited.

    How many rows each table has. Raises ImportFailed when ``folder`` is there already or cannot
    be written, StoreError.
    """
    with _new(folder) as partial:
        counts: dict[str, int] = {}
        files = {}
        for table, schema in TABLES.items():
            file = partial / f"{table}.parquet"
            counts[table] = _table(source, table, schema, _where(selection, table), file)
            files[table] = {"rows": counts[table], "sha256": _digest(file)}
        manifest = {
            "format": FORMAT,
            "at": at.isoformat(),
            "tenant": selection.tenant,
            "files": files,
        }
        with (partial / MANIFEST).open("w") as out:
            json.dump(manifest, out, indent=2)
            out.flush()
            os.fsync(out.fileno())
    return counts


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder to fill that gets its name when all of it is there."""
    if folder.exists():
        raise ImportFailed(f"{folder} is there already; an export is never rewritten")
    partial = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
        try:
            yield partial
            partial.rename(folder)
        except BaseException:
            for file in partial.iterdir():
                file.unlink()
            partial.rmdir()
            raise
    except OSError as error:
        raise ImportFailed(f"cannot write {folder}: {error.strerror or error}") from error


def _table(source: Source, table: str, schema: pa.Schema, where: Condition, file: Path) -> int:
    columns = ", ".join(_column(field) for field in schema)
    sql = f"SELECT {columns} FROM {table} i WHERE {where.text}"  # noqa: S608 - our own names
    n = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in source.batches(sql, where.parameters):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            n += batch.num_rows
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return n


def _column(field: Any) -> str:
    """UUIDs and JSON go out as the text they are."""
    return (
        f"i.{field.name}::VARCHAR AS {field.name}"
        if field.type == pa.string()
        else (f"i.{field.name}")
    )


def _where(selection: Selection, table: str) -> Condition:
    """The rows of ``table``, called ``i``, that go with the selected invocations."""
    if table == "invocations":
        return selection.where()
    own = Condition("i.tenant = ?", [selection.tenant])
    if selection.everything:
        return own
    chosen = selection.where()
    ids = f"(SELECT i.id FROM invocations i WHERE {chosen.text})"  # noqa: S608
    if table == "edits":
        return Condition.all([own, Condition(f"i.invocation_id IN {ids}", chosen.parameters)])
    episodes = f"(SELECT i.episode_id FROM invocations i WHERE {chosen.text})"  # noqa: S608
    about = (
        f"(i.target = 'invocation' AND i.target_id IN {ids}"
        f" OR i.target = 'episode' AND i.target_id IN {episodes})"
    )
    return Condition.all([own, Condition(about, chosen.parameters * 2)])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
