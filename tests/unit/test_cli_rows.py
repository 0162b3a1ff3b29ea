import io
import json
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
