import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ImportFailed
from gateway.log.import_ import source
from gateway.log.import_.source import files, rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path) -> list[object]:
    return [json.loads(row) for _, row in rows(path)]


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\n  {"a":2}\n{"a":3}')

    assert [(n, json.loads(row)["a"]) for n, row in rows(path)] == [(1, 1), (3, 2), (4, 3)]


def test_gzip_is_known_by_its_bytes_and_several_members_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "named-like-no-gzip.json"
    path.write_bytes(gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n{"a":3}\n'))

    assert read(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


@settings(deadline=None, max_examples=50)
@given(
    elements=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=8),
    indent=st.sampled_from([None, 2]),
    chunk=st.integers(1, 50),
)
def test_an_array_is_read_element_by_element_wherever_its_pieces_end(
    elements: list[dict[str, object]],
    indent: int | None,
    chunk: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(elements, indent=indent, ensure_ascii=False), encoding="utf-8")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_CHUNK", chunk)
        assert read(path) == elements


@pytest.mark.parametrize(("upto", "whole"), [(19, 2), (15, 1), (10, 1), (5, 0), (1, 0)])
def test_a_cut_array_gives_what_is_whole_and_says_where_it_ends(
    tmp_path: Path, upto: int, whole: int
) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"a": 2}]'[:upto])
    taken = []

    with pytest.raises(ImportFailed, match="breaks off"):
        taken.extend(row for _, row in rows(path))

    assert len(taken) == whole


def test_a_cut_gzip_gives_what_is_whole_and_says_after_which_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    whole = gzip.compress(b"".join(b'{"a":%d}\n' % n for n in range(100_000)))
    path.write_bytes(whole[: len(whole) // 2])
    taken = []

    with pytest.raises(ImportFailed, match=r"a\.json\.gz breaks off after row \d+") as failed:
        taken.extend(row for _, row in rows(path))

    assert taken
    assert f"row {len(taken)}:" in str(failed.value)


def test_what_is_no_gzip_inside_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(b"\x1f\x8bno gzip at all")

    with pytest.raises(ImportFailed, match="breaks off after row 0"):
        read(path)


def test_a_line_without_end_is_no_json_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LONGEST", 1 << 20)
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":1}\n' + b"x" * (2 << 20))

    with pytest.raises(ImportFailed, match="line 2 is longer"):
        read(path)


def test_a_folder_is_walked_as_s3_lays_it_in_order_and_without_large_bodies(
    tmp_path: Path,
) -> None:
    logs = tmp_path / "AWSLogs/1/BedrockModelInvocationLogs/us-east-1/2026"
    for name in ("04/18/b.json.gz", "04/17/a.json.gz", "04/17/data/r1_input.json.gz", "04/check"):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).touch()

    found = [path.relative_to(logs) for path in files(tmp_path, skip={"data"})]

    assert found == [Path("04/17/a.json.gz"), Path("04/18/b.json.gz")]


def test_a_folder_named_like_what_is_skipped_may_be_given_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").touch()

    assert list(files(tmp_path / "data", skip={"data"})) == [tmp_path / "data" / "a.jsonl"]


def test_where_there_is_nothing_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="no file named"):
        list(files(tmp_path))
    with pytest.raises(ImportFailed, match="not there"):
        list(files(tmp_path / "nope"))
