import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.log.record import new_id
from gateway.log.store import Store
from learner.dataset.rebuild import rebuild
from learner.dataset.sample import Sample
from learner.dataset.snapshot import read, write
from tests.factories import NOW


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def recorded(store: Store, folder: Path, *names: str) -> Path:
    """A snapshot of these samples that the log knows of."""
    samples = [Sample(name, ({"role": "user", "content": name},)) for name in names]
    path = write([("train", sample) for sample in samples], folder)
    identity, at = str(new_id()), NOW.replace(tzinfo=None)
    row = [identity, at, "helpdesk", None, at, None, str(path), path.stem, len(names)]
    with store.transaction() as transaction:
        transaction.execute("INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for name in names:
            item = [identity, name]
            transaction.execute("INSERT INTO dataset_items VALUES (?, ?, 'train')", item)
    return path


def erase(store: Store, *names: str) -> str:
    identity = str(new_id())
    with store.transaction() as transaction:
        for name in names:
            row = [identity, name, name, NOW.replace(tzinfo=None)]
            transaction.execute("INSERT INTO erased VALUES (?, ?, ?, ?)", row)
    return identity


def files(folder: Path) -> set[Path]:
    return set(folder.iterdir())


def test_a_snapshot_that_holds_nobody_erased_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    path = recorded(store, tmp_path / "datasets", str(new_id()))
    erase(store, str(new_id()))

    waiting = rebuild(store, tmp_path / "datasets", in_use=(), at=NOW)

    assert waiting == set()
    assert files(tmp_path / "datasets") == {path}


def test_a_snapshot_of_which_nothing_is_left_goes(store: Store, tmp_path: Path) -> None:
    name = str(new_id())
    recorded(store, tmp_path / "datasets", name)
    erase(store, name)

    rebuild(store, tmp_path / "datasets", in_use=(), at=NOW)

    assert files(tmp_path / "datasets") == set()
    assert store.rows("SELECT count(*) AS n FROM datasets") == [{"n": 1}]


def test_what_a_crash_left_half_done_is_finished_once(store: Store, tmp_path: Path) -> None:
    gone, kept = str(new_id()), str(new_id())
    folder = tmp_path / "datasets"
    old = recorded(store, folder, gone, kept)
    content = old.read_bytes()
    erase(store, gone)
    rebuild(store, folder, in_use=(), at=NOW)
    old.write_bytes(content)  # as if the old file had not been removed yet

    rebuild(store, folder, in_use=(), at=NOW)

    [new] = files(folder)
    assert [sample.id for sample in read(new, "train")] == [kept]
    assert store.rows("SELECT count(*) AS n FROM datasets WHERE query IS NOT NULL") == [{"n": 1}]
    assert store.rows("SELECT count(*) AS n FROM dataset_items") == [{"n": 3}]


def test_a_snapshot_in_use_waits_and_says_whose_erasure_does(store: Store, tmp_path: Path) -> None:
    name = str(new_id())
    path = recorded(store, tmp_path / "datasets", name, str(new_id()))
    erasure = erase(store, name)

    waiting = rebuild(store, tmp_path / "datasets", in_use={path.stem}, at=NOW)

    assert waiting == {erasure}
    assert files(tmp_path / "datasets") == {path}


def test_a_file_that_was_never_finished_goes_when_nobody_can_be_writing_it(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir()
    for name, age in ((".old.partial", 3601), (".young.partial", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (NOW.timestamp() - age,) * 2)

    rebuild(store, folder, in_use=(), at=NOW)

    assert files(folder) == {folder / ".young.partial"}
