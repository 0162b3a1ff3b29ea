import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from gateway.errors import ImportFailed
from learner.cli.rows import destination, write

SCHEMA = pa.schema(
    [("n", pa.int64()), ("text", pa.string()), ("tags", pa.map_(pa.string(), pa.string()))]
)


def batches(n: int, rows: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, n, rows):
        made = [
            {"n": i, "text": f"größe, \n{i}", "tags": [("a", str(i))]}
            for i in range(start, min(start + rows, n))
        ]
        yield pa.RecordBatch.from_pylist(made, schema=SCHEMA)
    if n == 0:
        yield pa.RecordBatch.from_pylist([], schema=SCHEMA)


def written(style: str, n: int) -> bytes:
    file = io.BytesIO()
    write(batches(n), style, file)
    return file.getvalue()


@pytest.mark.parametrize("n", [0, 1, 10])
def test_json_is_an_array_with_an_object_a_line(n: int) -> None:
    text = written("json", n).decode()

    rows = json.loads(text)
    assert rows == [{"n": i, "text": f"größe, \n{i}", "tags": {"a": str(i)}} for i in range(n)]
    assert len(text.splitlines()) == (n + 2 if n else 1)


def test_csv_holds_what_is_nested_as_json() -> None:
    table = csv.read_csv(
        io.BytesIO(written("csv", 4)), parse_options=csv.ParseOptions(newlines_in_values=True)
    )

    assert table["n"].to_pylist() == [0, 1, 2, 3]
    assert table["text"][1].as_py() == "größe, \n1"
    assert json.loads(table["tags"][3].as_py()) == {"a": "3"}


def test_parquet_keeps_types() -> None:
    table = parquet.read_table(io.BytesIO(written("parquet", 10)))

    assert table.num_rows == 10
    assert table.schema.field("tags").type == SCHEMA.field("tags").type


def test_a_table_is_for_people() -> None:
    head, ruler, *lines = written("table", 4).decode().splitlines()

    assert head.split() == ["n", "text", "tags"]
    assert set(ruler) == {"-", " "}
    assert lines[2].split() == ["2", "größe,", "2", "{'a':", "'2'}"]


def test_columns_of_one_name_are_both_in_a_table() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x"])], ["a", "a"])
    file = io.BytesIO()

    write(iter([batch]), "table", file)

    assert file.getvalue().decode().split() == ["a", "a", "-", "-", "1", "x"]


def test_a_file_is_there_only_once_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(3)
        raise RuntimeError

    with pytest.raises(RuntimeError), destination(out, "json") as file:
        write(broken(), "json", file)

    assert list(tmp_path.iterdir()) == []
    with destination(out, "json") as file:
        write(batches(3), "json", file)
    assert len(json.loads(out.read_text())) == 3


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "out.csv"

    with pytest.raises(ImportFailed, match="nowhere"), destination(out, "csv") as file:
        file.write(b"")


def one_row(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def test_json_takes_what_is_no_number_for_null() -> None:
    file = io.BytesIO()

    write(
        iter([one_row(n=pa.array([float("nan")]), l=pa.array([[1.5, float("inf")]]))]), "json", file
    )

    assert json.loads(file.getvalue(), parse_constant=pytest.fail) == [
        {"n": None, "l": [1.5, None]}
    ]


@pytest.mark.parametrize("style", ["csv", "json", "parquet", "table"])
def test_the_time_between_two_times_is_text_everywhere(style: str) -> None:
    spans = pa.array([pa.MonthDayNano([0, 2, 3_723_500_000_000]), None])
    file = io.BytesIO()

    write(iter([one_row(span=spans)]), style, file)

    if style == "parquet":
        assert parquet.read_table(io.BytesIO(file.getvalue()))["span"][0].as_py() == (
            "2 days 01:02:03.500000"
        )
    else:
        assert b"2 days 01:02:03.500000" in file.getvalue()


def test_bytes_are_hexadecimal_in_csv_and_json() -> None:
    for style in ("csv", "json"):
        file = io.BytesIO()

        write(iter([one_row(b=pa.array([b"\xff\x00"]))]), style, file)

        assert b'"ff00"' in file.getvalue()


@pytest.mark.parametrize("style", ["csv", "json", "parquet"])
def test_machines_get_every_column_of_one_name(style: str) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], list("aaa"))
    file = io.BytesIO()

    write(iter([batch]), style, file)

    if style == "parquet":
        names = parquet.read_table(io.BytesIO(file.getvalue())).schema.names
        assert names == ["a", "a_1", "a_2"]
    else:
        assert b'"a"' in file.getvalue()
        assert b'"a_2"' in file.getvalue()


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "pipe"
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)

    with destination(out, "json") as file:
        write(batches(1), "json", file)

    assert json.loads(os.read(reader, 1000))
    assert out.is_fifo()
    os.close(reader)
