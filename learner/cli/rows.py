"""Rows on their way out: as a table for people, as CSV, JSON or Parquet, a batch at a time."""

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    """The file ``out``, which is there only once it is whole, or standard output.

    A pipe or a device is written to, never replaced.
    """
    if out is None or str(out) == "-":
        if style == "parquet" and sys.stdout.isatty():
            raise click.UsageError("Parquet is not for terminals: name a file with -o")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    is_new = not out.exists() or out.is_file()
    part = out.with_name(out.name + ".part") if is_new else out
    try:
        with part.open("wb") as file:
            yield file
        if is_new:
            part.replace(out)
    except OSError as error:
        raise ImportFailed(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if is_new:
            part.unlink(missing_ok=True)


def write(batches: Iterator[pa.RecordBatch], style: str, file: BinaryIO) -> None:
    """All of ``batches``, of which there is at least one, in constant memory.

    For machines, columns of one name are numbered: ``id``, ``id_1``.
    """
    if style != "table":
        batches = map(_storable, batches)
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
    """Times and decimals are text in it; what is no number (NaN, Infinity) is null."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_as_text, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_as_text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


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
    text = "" if value is None else " ".join(_as_text(value).split())
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """CSV has no lists and maps: they are JSON in it. Bytes are hexadecimal."""

    def flat(column: pa.Array) -> pa.Array:
        if pa.types.is_nested(column.type):
            show = as_json
        elif pa.types.is_binary(column.type):
            show = _as_text
        else:
            return column
        shown = [None if one is None else show(one) for one in _listed(column)]
        return pa.array(shown, pa.string())

    columns = [flat(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _listed(column: pa.Array) -> list[Any]:
    listed: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return listed


def _storable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With names that differ, and without intervals, which no format has: they are text."""
    names: list[str] = []
    for name in batch.schema.names:
        free = (f"{name}_{n}" for n in itertools.count(1))
        names.append(next(one for one in free if one not in names) if name in names else name)
    columns = [
        pa.array([None if one is None else _as_text(one) for one in _listed(column)], pa.string())
        if pa.types.is_interval(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names)


def _as_text(value: Any) -> str:
    """As DuckDB shows it, where Python would show its own name for it."""
    if isinstance(value, bytes):
        return value.hex()
    if not isinstance(value, pa.MonthDayNano):
        return str(value)
    parts = [f"{n} {unit}" for n, unit in ((value.months, "months"), (value.days, "days")) if n]
    if value.nanoseconds or not parts:
        seconds = abs(value.nanoseconds) / 1e9
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(int(minutes), 60)
        sign = "-" if value.nanoseconds < 0 else ""
        parts.append(f"{sign}{hours:02d}:{minutes:02d}:{seconds:09.6f}")
    return " ".join(parts)
