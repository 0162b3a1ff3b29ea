"""Rows on their way out: as a table for people, as CSV, JSON or Parquet, a batch at a time."""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import pyarrow as pa
from pyarrow import csv, parquet

from gateway.errors import ImportFailed

_CELL = 60


@contextmanager
def destination(out: Path | None, style: str) -> Iterator[BinaryIO]:
    """The file ``out``, which is there only once it is whole, or standard output."""
    if out is None:
        if style == "parquet" and sys.stdout.isatty():
            raise click.UsageError("Parquet is not for terminals: name a file with -o")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise ImportFailed(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def write(batches: Iterator[pa.RecordBatch], style: str, file: BinaryIO) -> None:
    """All of ``batches``, of which there is at least one, in constant memory."""
    first = next(batches)
    every = itertools.chain([first], batches)
    if style == "table":
        _table(every, first, file)
    elif style == "csv":
        schema = _flat(first).schema
        with csv.CSVWriter(file, schema) as writer:
            for batch in every:
                writer.write_batch(_flat(batch))
    elif style == "json":
        _json(every, file)
    else:
        with parquet.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for batch in every:
                writer.write_batch(batch)


def rows_of(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """Row by row; a map is a dict."""
    for batch in batches:
        yield from batch.to_pylist(maps_as_pydicts="strict")


def as_json(value: Any) -> str:
    """Times and decimals are text in it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _json(batches: Iterator[pa.RecordBatch], file: BinaryIO) -> None:
    """An array, an object a line."""
    before = "[\n"
    for row in rows_of(batches):
        file.write((before + as_json(row)).encode())
        before = ",\n"
    file.write(b"[]\n" if before == "[\n" else b"\n]\n")


def _table(batches: Iterator[pa.RecordBatch], first: pa.RecordBatch, file: BinaryIO) -> None:
    """Columns are as wide as the first batch needs them."""
    names: list[str] = first.schema.names
    lines = [names, *_cells(iter([first]))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    ruler = ["-" * width for width in widths]
    for line in itertools.chain([names, ruler], _cells(batches)):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        file.write(("  ".join(cells).rstrip() + "\n").encode())


def _cells(batches: Iterator[pa.RecordBatch]) -> Iterator[Sequence[str]]:
    for batch in batches:
        # Not by row: two columns may have one name.
        columns = [_listed(column) for column in batch.columns]
        yield from ([_cell(value) for value in row] for row in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """CSV has no lists and maps: they are JSON in it."""
    columns = [
        pa.array([None if one is None else as_json(one) for one in _listed(column)], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _listed(column: pa.Array) -> list[Any]:
    listed: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return listed
