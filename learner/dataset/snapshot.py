"""Dataset snapshots: Parquet files of samples, each with its split."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from learner.dataset.sample import Sample
from learner.errors import DatasetError

COLUMNS = ("id", "split", "messages", "tools", "reference_answer", "demonstration")
"""All strings; the last four hold JSON, the last two may be null."""

SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


def read(path: Path, split: str) -> tuple[Sample, ...]:
    """The samples of one split, in the file's order. DatasetError when it is not a snapshot."""
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not a dataset snapshot: {error}") from error
    return tuple(_sample(row) for row in table.to_pylist() if row["split"] == split)


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
    table = pa.Table.from_pylist([_row(split, sample) for split, sample in ordered], SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid4().hex}.partial"
    pq.write_table(table, partial, compression="zstd")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    final = folder / f"{digest}.parquet"
    if final.exists():
        partial.unlink()
    else:
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
