from pathlib import Path

import pytest

from gateway.log.cipher import KEY
from learner.dataset.sample import Sample
from learner.dataset.snapshot import read, without, write
from learner.errors import DatasetError

MARKER = "a very secret question"


def sample(name: str, text: str = MARKER) -> Sample:
    return Sample(id=name, messages=({"role": "user", "content": text},))


ROWS = [("train", sample("a")), ("held_out", sample("b")), ("train", sample("c"))]


def test_a_sealed_snapshot_is_read_with_the_key_and_hides_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "ab" * 32)

    path = write(ROWS, tmp_path)

    assert [one.id for one in read(path, "train")] == ["a", "c"]
    assert MARKER.encode() not in path.read_bytes()
    assert not path.read_bytes().startswith(b"PAR1")


def test_a_key_does_not_change_a_snapshots_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    plain = write(ROWS, tmp_path / "plain")
    monkeypatch.setenv(KEY, "ab" * 32)

    sealed = write(ROWS, tmp_path / "sealed")

    assert sealed.name == plain.name
    assert read(plain, "train") == read(sealed, "train")


@pytest.mark.parametrize("key", [None, "cd" * 32, "not a key"])
def test_a_sealed_snapshot_without_its_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setenv(KEY, "ab" * 32)
    path = write(ROWS, tmp_path)
    monkeypatch.delenv(KEY)
    if key is not None:
        monkeypatch.setenv(KEY, key)

    with pytest.raises(DatasetError, match="key"):
        read(path, "train")


def test_a_snapshot_rebuilt_without_a_sample_is_the_one_that_never_had_it(tmp_path: Path) -> None:
    path = write(ROWS, tmp_path)
    never_had_it = write([row for row in ROWS if row[1].id != "a"], tmp_path / "other")

    rebuilt = without(path, {"a"}, tmp_path)

    assert rebuilt is not None
    assert rebuilt.read_bytes() == never_had_it.read_bytes()
    assert rebuilt.name == never_had_it.name != path.name


def test_a_snapshot_of_which_nothing_is_left_is_not_rebuilt(tmp_path: Path) -> None:
    path = write(ROWS, tmp_path)

    rebuilt = without(path, {"a", "b", "c"}, tmp_path)

    assert rebuilt is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
