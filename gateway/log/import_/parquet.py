"""Our own Parquet export, read back: the rows as they were, ids and origins included."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.errors import BadRow, ImportFailed
from gateway.log.export.parquet import MANIFEST
from gateway.log.import_.intake import Intake
from gateway.log.record import Edit, Feedback, Invocation, Verdict

_KINDS: Final = {"invocations": Invocation, "feedback": Feedback, "edits": Edit}
_IDS: Final = ("id", "episode_id", "parent_id", "target_id", "invocation_id")
_ROWS: Final = 1000

_verdicts = msgspec.json.Decoder(list[Verdict])

Row = tuple[str, Mapping[str, Any]]
"""A row and the table it is of."""


def rows(folder: Path) -> Iterator[tuple[int, Row]]:
    """Every row of an export with its number in its table.

    Raises ImportFailed, before the first row, when the export is not whole.
    """
    for table in _checked(folder):
        try:
            file = pq.ParquetFile(folder / f"{table}.parquet")
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield number, (table, row)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ImportFailed(f"{folder / table}.parquet cannot be read: {error}") from error


def records(row: Row, into: Intake) -> tuple[Invocation | Feedback | Edit]:
    """The record that an exported row came from. Raises BadRow."""
    table, columns = row
    known = {name: value for name, value in columns.items() if value is not None}
    known.pop("ingest_ts")
    for name in _IDS:
        if name in known:
            known[name] = UUID(known[name])
    known["ts"] = known["ts"].replace(tzinfo=UTC)
    if table == "invocations":
        known["v"] = known.pop("schema_version")
        known["train_ok"] = known["train_ok"] and into.train_ok
        for name in ("request", "response"):
            if name in known:
                known[name] = msgspec.Raw(known[name].encode())
        if "verdicts" in known:
            known["verdicts"] = _verdicts.decode(known["verdicts"])
    if "value" in known:
        known["value"] = msgspec.json.decode(known["value"])
    try:
        return (_KINDS[table](**known),)
    except TypeError as error:
        raise BadRow(f"a row of {table} with columns of another version: {error}") from error


def _checked(folder: Path) -> list[str]:
    """The tables that the manifest names, once their files are known to be what it says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for table, said in manifest["files"].items():
            if table not in _KINDS:
                raise ImportFailed(f"{folder} is an export of a later version: it has {table}")
            with (folder / f"{table}.parquet").open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != said["sha256"]:
                raise ImportFailed(f"{folder / table}.parquet is not the file that was exported")
        return [table for table in _KINDS if table in manifest["files"]]
    except FileNotFoundError as error:
        raise ImportFailed(
            f"{folder} is no whole export: {Path(error.filename).name} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFailed(f"{folder} is no export: its {MANIFEST} is damaged: {error}") from error
