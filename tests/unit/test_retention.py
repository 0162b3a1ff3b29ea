import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.log import rows
from gateway.log.record import Edit, Feedback, Invocation, new_id
from gateway.log.retention import EXPIRY, clear_quarantine, expire
from gateway.log.store import Store
from tests.factories import NOW, demonstration, invocation

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def keep(store: Store, *records: Invocation | Feedback) -> None:
    with store.transaction() as transaction:
        for record in records:
            if isinstance(record, Invocation):
                table = rows.table([rows.invocation(record, NOW, {})], rows.INVOCATIONS)
                transaction.insert("invocations", table)
            else:
                table = rows.table([rows.feedback(record, NOW)], rows.FEEDBACK)
                transaction.insert("feedback", table)


def on_episode(episode: object) -> Feedback:
    fields = {"id": new_id(), "ts": NOW, "tenant": "default", "name": "good", "score_value": 1.0}
    return Feedback(**fields | {"target": "episode", "target_id": episode})


def ids(store: Store, table: str = "invocations", which: str = "true") -> set[str]:
    return {row["id"] for row in store.rows(f"SELECT id::VARCHAR AS id FROM {table} WHERE {which}")}


def test_bodies_go_by_their_clock_and_the_rest_of_the_row_stays(store: Store) -> None:
    old = invocation(ts=NOW - 31 * DAY, stored=True)
    young = invocation(ts=NOW - 29 * DAY, stored=True)
    keep(store, old, young)

    taken = expire(store, bodies=30 * DAY, rows=None, now=NOW)

    assert (taken.bodies, taken.rows) == (1, 0)
    assert ids(store) == {str(old.id), str(young.id)}
    silent = "request IS NULL AND response IS NULL AND NOT stored AND train_ok AND input_tokens = 3"
    assert ids(store, which=silent) == {str(old.id)}
    assert ids(store, which="request IS NOT NULL AND stored") == {str(young.id)}


def test_rows_go_by_their_clock_with_what_was_said_of_them(store: Store) -> None:
    old, young = invocation(ts=NOW - 91 * DAY), invocation(ts=NOW - 89 * DAY)
    about_old, about_young = demonstration(old.id, order="1"), demonstration(young.id, order="2")
    episode = on_episode(old.episode_id)
    edit = Edit(id=new_id(), ts=NOW, tenant="default", invocation_id=old.id, tags={})
    keep(store, old, young, about_old, about_young, episode)
    store.append({"edits": rows.table([rows.edit(edit, NOW)], rows.EDITS)}, [], NOW)

    taken = expire(store, bodies=30 * DAY, rows=90 * DAY, now=NOW)

    assert (taken.bodies, taken.rows) == (1, 1)
    assert ids(store) == {str(young.id)}
    assert ids(store, "feedback") == {str(about_young.id)}
    assert ids(store, "edits") == set()


def test_feedback_on_an_episode_stays_while_one_of_its_calls_does(store: Store) -> None:
    episode = new_id()
    said = on_episode(episode)
    keep(
        store,
        invocation(ts=NOW - 91 * DAY, episode_id=episode),
        invocation(ts=NOW, episode_id=episode),
        said,
    )

    expire(store, bodies=None, rows=90 * DAY, now=NOW)

    assert ids(store, "feedback") == {str(said.id)}


def test_feedback_that_is_about_nothing_goes_by_its_own_age(store: Store) -> None:
    orphan = Feedback(
        id=new_id(),
        ts=NOW - 91 * DAY,
        tenant="default",
        target="invocation",
        target_id=new_id(),
        name="good",
    )
    keep(store, orphan)

    expire(store, bodies=None, rows=90 * DAY, now=NOW)

    assert ids(store, "feedback") == set()


def test_without_clocks_everything_stays(store: Store) -> None:
    keep(store, invocation(ts=NOW - 10_000 * DAY))

    taken = expire(store, bodies=None, rows=None, now=NOW)

    assert (taken.bodies, taken.rows) == (0, 0)
    assert len(ids(store, which="request IS NOT NULL")) == 1


def test_batches_however_small_take_everything_once(store: Store) -> None:
    keep(store, *(invocation(ts=NOW - (90 + n % 3) * DAY) for n in range(10)))
    keep(store, *(invocation(ts=NOW - (30 + n % 3) * DAY) for n in range(7)))

    first = expire(store, bodies=20 * DAY, rows=60 * DAY, now=NOW, batch=2)
    again = expire(store, bodies=20 * DAY, rows=60 * DAY, now=NOW, batch=2)

    assert (first.bodies, first.rows) == (7, 10)
    assert (again.bodies, again.rows) == (0, 0)


def test_what_a_dataset_holds_of_the_expired_is_noted_once(store: Store) -> None:
    copied, other = invocation(ts=NOW - 31 * DAY), invocation(ts=NOW - 31 * DAY)
    keep(store, copied, other)
    with store.transaction() as transaction:
        item = [str(new_id()), str(copied.id)]
        transaction.execute("INSERT INTO dataset_items VALUES (?, ?, 'train')", item)

    expire(store, bodies=30 * DAY, rows=None, now=NOW)
    expire(store, bodies=30 * DAY, rows=30 * DAY, now=NOW)

    assert store.rows(
        "SELECT erasure_id::VARCHAR AS erasure, invocation_id::VARCHAR AS id FROM erased"
    ) == [{"erasure": str(EXPIRY), "id": str(copied.id)}]


def test_quarantine_is_cleared_after_thirty_days(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    folder.mkdir()
    for name, age in (("old", 31 * DAY), ("young", 29 * DAY)):
        (folder / name).write_bytes(b"{half\n")
        at = (NOW - age).timestamp()
        os.utime(folder / name, (at, at))

    cleared = clear_quarantine(tmp_path, now=NOW)

    assert cleared == 1
    assert [file.name for file in folder.iterdir()] == ["young"]
