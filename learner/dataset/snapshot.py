"""Dataset snapshots: Parquet files of samples, each with its split.

Where the environment has an encryption key, a file is sealed. Its name is the SHA-256 of the
Parquet in it either way: the same samples, the same name.
"""

import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.errors import CipherError, KeyUnavailable
from gateway.log.cipher import KEY, Keyring
from learner.dataset.sample import Sample
from learner.errors import DatasetError

COLUMNS = ("id", "split", "messages", "tools", "reference_answer", "demonstration")
"""All strings; the last four hold JSON, the last two may be null."""

PARTIAL = ".partial"
"""Ends the name of a file that is still being written."""

_PARQUET = b"PAR1"

SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


def read(path: Path, split: str) -> tuple[Sample, ...]:
    """The samples of one split, in the file's order. DatasetError when it is not a snapshot."""
    return tuple(_sample(row) for row in _table(path).to_pylist() if row["split"] == split)


def without(path: Path, ids: Collection[str], folder: Path) -> Path | None:
    """The snapshot without these samples, as a new one in ``folder``; None when nothing is left.

    DatasetError when ``path`` is not a snapshot.
    """
    table = _table(path)
    kept = table.filter(pa.array([name not in ids for name in table["id"].to_pylist()], pa.bool_()))
    return _stored(kept, folder) if kept.num_rows else None


def _table(path: Path) -> pa.Table:
    try:
        content = path.read_bytes()
        if not content.startswith(_PARQUET):
            content = _opened(content)
        return pq.read_table(pa.BufferReader(content), columns=list(COLUMNS))
    except (OSError, pa.ArrowException, CipherError, KeyUnavailable) as error:
        raise DatasetError(f"{path} is not a dataset snapshot: {error}") from error


def _opened(content: bytes) -> bytes:
    keys = Keyring.from_environment(os.environ)
    if keys is None:
        raise CipherError(f"it is neither Parquet nor is there a key to open it with; set {KEY}")
    return keys.datasets.open(content)


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        id=row["id"],
        messages=tuple(json.loads(row["messages"])),
        tools=tuple(json.loads(row["tools"] or "[]")),
        reference_answer=json.loads(row["reference_answer"] or "null"),
        demonstration=json.loads(row["demonstration"] or "null"),
    )


def write(rows: Iterable[tuple[str, Sample]], folder: Path) -> Path:
    """Write ``(split, sample)`` rows as a snapshot named by its SHA-256; never rewritten.

    Rows are ordered by split and id, so that the same samples give the same file.
    """
    ordered = sorted(rows, key=lambda row: (row[0], row[1].id))
    return _stored(pa.Table.from_pylist([_row(*row) for row in ordered], SCHEMA), folder)


def _stored(table: pa.Table, folder: Path) -> Path:
    """The file, named by its content; where there is a key nothing plain touches the disk."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue()
    final = folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
    if final.exists():
        return final
    if keys := Keyring.from_environment(os.environ):
        content = keys.datasets.seal(content)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid4().hex}{PARTIAL}"
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(final)
    return final


def _row(split: str, sample: Sample) -> dict[str, str | None]:
    return {
        "id": sample.id,
        "split": split,
        "messages": json.dumps(sample.messages, ensure_ascii=False),
        "tools": json.dumps(sample.tools, ensure_ascii=False),
        "reference_answer": _json(sample.reference_answer),
        "demonstration": _json(sample.demonstration),
    }


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
