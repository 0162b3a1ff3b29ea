from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gateway.log import rows
from gateway.log.erasure import Erased, apply
from gateway.log.record import Edit, Erasure, Feedback, Invocation, new_id
from gateway.log.store import Store
from tests.factories import NOW, demonstration, invocation

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def erasure(**changes: Any) -> Erasure:
    return Erasure(**{"id": new_id(), "ts": NOW, "tenant": "default"} | changes)


def rating(target: str, target_id: Any, **changes: Any) -> Feedback:
    fields = {"id": new_id(), "ts": NOW, "tenant": "default", "name": "good", "score_value": 1.0}
    return Feedback(**fields | {"target": target, "target_id": target_id} | changes)


def keep(store: Store, *records: Invocation | Feedback | Edit) -> None:
    """What the ingester does with them, in short."""
    with store.transaction() as transaction:
        for record in records:
            if isinstance(record, Invocation):
                table = rows.table([rows.invocation(record, NOW, {})], rows.INVOCATIONS)
                transaction.insert("invocations", table)
            elif isinstance(record, Feedback):
                table = rows.table([rows.feedback(record, NOW)], rows.FEEDBACK)
                transaction.insert("feedback", table)
            else:
                transaction.insert("edits", rows.table([rows.edit(record, NOW)], rows.EDITS))


def erase(store: Store, *erasures: Erasure) -> None:
    with store.transaction() as transaction:
        apply(transaction, erasures, LATER)


def ids(store: Store, table: str = "invocations") -> set[str]:
    return {row["id"] for row in store.rows(f"SELECT id::VARCHAR AS id FROM {table}")}


def named(*records: Invocation | Feedback | Edit) -> set[str]:
    return {str(record.id) for record in records}


def test_a_subject_loses_what_it_did_until_then_and_nobody_else_anything(store: Store) -> None:
    gone = [invocation(subject_id="s1"), invocation(subject_id="s1")]
    kept = [
        invocation(subject_id="s1", ts=NOW + timedelta(seconds=1)),
        invocation(subject_id="s1", tenant="other"),
        invocation(subject_id="s2"),
        invocation(),
    ]
    keep(store, *gone, *kept)

    erase(store, erasure(subject_id="s1"))

    assert ids(store) == named(*kept)


def test_feedback_and_edits_go_with_the_call_they_are_about(store: Store) -> None:
    gone, kept = invocation(subject_id="s1"), invocation(subject_id="s2")
    about_gone = [rating("invocation", gone.id), demonstration(gone.id, order="7")]
    about_kept = [rating("invocation", kept.id), demonstration(kept.id, order="8")]
    edits = [
        Edit(id=new_id(), ts=NOW, tenant="default", invocation_id=one.id, tags={})
        for one in (gone, kept)
    ]
    keep(store, gone, kept, *about_gone, *about_kept, *edits)

    erase(store, erasure(subject_id="s1"))

    assert ids(store, "feedback") == named(*about_kept)
    assert ids(store, "edits") == named(edits[1])


def test_feedback_on_an_episode_goes_with_the_episodes_last_call(store: Store) -> None:
    shared, alone = new_id(), new_id()
    keep(
        store,
        invocation(subject_id="s1", episode_id=shared),
        invocation(subject_id="s2", episode_id=shared),
        invocation(subject_id="s1", episode_id=alone),
    )
    kept, gone = rating("episode", shared), rating("episode", alone)
    keep(store, kept, gone)

    erase(store, erasure(subject_id="s1"))

    assert ids(store, "feedback") == named(kept)
    assert Erased.read(store).covers(gone)
    assert not Erased.read(store).covers(kept)


def test_the_log_says_what_was_erased_and_how_much(store: Store) -> None:
    gone = invocation(subject_id="s1")
    keep(store, gone, rating("invocation", gone.id))
    order = erasure(subject_id="s1", reason="asked by mail")

    erase(store, order)

    assert store.rows("SELECT tenant, scope, subject_id, reason FROM erasures") == [
        {"tenant": "default", "scope": "rows", "subject_id": "s1", "reason": "asked by mail"}
    ]
    assert store.rows("SELECT invocation_id::VARCHAR AS id FROM erased") == [{"id": str(gone.id)}]
    assert store.rows("SELECT step, invocations, feedback FROM erasure_steps") == [
        {"step": "deleted", "invocations": 1, "feedback": 1}
    ]


def test_one_call_is_erased_by_its_own_tenant_only(store: Store) -> None:
    mine, other = invocation(), invocation()
    keep(store, mine, other)

    erase(store, erasure(invocation_id=mine.id), erasure(invocation_id=other.id, tenant="thief"))

    assert ids(store) == named(other)
    assert not Erased.read(store).covers(other)


def test_a_replayed_erasure_changes_nothing_and_takes_replayed_rows_again(store: Store) -> None:
    gone, order = invocation(subject_id="s1"), erasure(subject_id="s1")
    keep(store, gone)
    erase(store, order)
    tables = ("erasures", "erased", "erasure_steps")
    before = {table: store.rows(f"SELECT * FROM {table}") for table in tables}
    keep(store, gone)

    erase(store, order)

    assert {table: store.rows(f"SELECT * FROM {table}") for table in tables} == before
    assert not ids(store)


def test_rows_and_their_erasure_may_come_in_one_transaction(store: Store) -> None:
    gone = invocation(subject_id="s1")

    with store.transaction() as transaction:
        table = rows.table([rows.invocation(gone, NOW, {})], rows.INVOCATIONS)
        transaction.insert("invocations", table)
        apply(transaction, [erasure(subject_id="s1")], LATER)

    assert not ids(store)
    assert store.rows("SELECT invocations FROM erasure_steps") == [{"invocations": 1}]


def test_an_erasure_that_matches_nothing_is_recorded_for_what_turns_up_late(store: Store) -> None:
    erase(store, erasure(subject_id="s1"))

    erased = Erased.read(store)

    assert erased.covers(invocation(subject_id="s1"))
    assert not erased.covers(invocation(subject_id="s1", ts=LATER))
    assert not erased.covers(invocation(subject_id="s1", tenant="other"))
    assert not erased.covers(invocation(subject_id="s2"))
    assert store.rows("SELECT step, invocations FROM erasure_steps") == [
        {"step": "deleted", "invocations": 0}
    ]


def test_what_is_said_late_of_an_erased_call_is_covered(store: Store) -> None:
    gone, named_only = invocation(subject_id="s1"), new_id()
    keep(store, gone)
    erase(store, erasure(subject_id="s1"), erasure(invocation_id=named_only))

    erased = Erased.read(store)

    edit = Edit(id=new_id(), ts=LATER, tenant="default", invocation_id=gone.id, tags={})
    assert erased.covers(edit)
    assert erased.covers(rating("invocation", gone.id, ts=LATER))
    assert erased.covers(rating("invocation", named_only))
    assert erased.covers(invocation(id=named_only, ts=LATER))
    assert not erased.covers(rating("invocation", gone.id, tenant="other"))
    assert not erased.covers(rating("invocation", new_id()))


def test_a_late_call_that_is_left_out_takes_what_was_said_of_it_along(store: Store) -> None:
    late, other = invocation(subject_id="s1"), invocation(subject_id="s2")
    said, unrelated = rating("invocation", late.id), rating("invocation", other.id)
    erase(store, erasure(subject_id="s1"))
    keep(store, said, unrelated)
    erased = Erased.read(store)

    with store.transaction() as transaction:
        erased.note(transaction, [late, late], LATER)

    assert ids(store, "feedback") == named(unrelated)
    assert store.rows("SELECT invocation_id::VARCHAR AS id FROM erased") == [{"id": str(late.id)}]
    assert Erased.read(store).covers(said)


def test_a_call_that_is_named_before_it_comes_takes_what_was_said_of_it_along(
    store: Store,
) -> None:
    late = invocation()
    keep(store, rating("invocation", late.id))
    erase(store, erasure(invocation_id=late.id))
    erased = Erased.read(store)

    with store.transaction() as transaction:
        erased.note(transaction, [late], LATER)

    assert not ids(store, "feedback")


def columns(store: Store, which: str, leave_out: Sequence[str]) -> list[dict[str, Any]]:
    names = ", ".join(leave_out)
    table: pa.Table = store.table(f"SELECT * EXCLUDE ({names}) FROM invocations {which}")
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_without_its_bodies_a_row_stays_for_the_bill_and_is_no_longer_listed_or_learnt_from(
    store: Store,
) -> None:
    call = invocation(stored=True, tags={"team": "a"}, cost=0.5)
    keep(store, call, invocation(stored=True))
    concerned = ("request", "response", "stored", "train_ok")
    before = columns(store, f"WHERE id = '{call.id}'", concerned)

    erase(store, erasure(invocation_id=call.id, scope="bodies"))

    assert columns(store, f"WHERE id = '{call.id}'", concerned) == before
    assert store.rows("SELECT request, response, stored, train_ok FROM invocations ORDER BY id")[
        0
    ] == {"request": None, "response": None, "stored": False, "train_ok": False}
    assert store.rows("SELECT count(*) AS n FROM invocations WHERE stored") == [{"n": 1}]


def test_without_its_bodies_a_call_keeps_its_scores_but_not_their_words(store: Store) -> None:
    call = invocation()
    said = rating("invocation", call.id, explanation="quotes the answer", value={"text": "it"})
    keep(store, call, said, rating("invocation", call.id))

    erase(store, erasure(invocation_id=call.id, scope="bodies"))

    found = store.rows("SELECT score_value, explanation, value FROM feedback")
    assert found == [{"score_value": 1.0, "explanation": None, "value": None}] * 2
    assert store.rows("SELECT invocations, feedback FROM erasure_steps") == [
        {"invocations": 1, "feedback": 1}
    ]


def test_a_late_call_whose_bodies_were_erased_is_stripped_not_covered(store: Store) -> None:
    erase(store, erasure(subject_id="s1", scope="bodies"))

    erased = Erased.read(store)

    assert erased.strips(invocation(subject_id="s1"))
    assert not erased.strips(invocation(subject_id="s1", ts=LATER))
    assert not erased.covers(invocation(subject_id="s1"))


def test_stripping_twice_strips_once(store: Store) -> None:
    call = invocation()
    order = erasure(invocation_id=call.id, scope="bodies")
    keep(store, call)
    erase(store, order)

    erase(store, order)

    assert ids(store) == named(call)
    assert store.rows("SELECT count(*) AS n FROM erasure_steps") == [{"n": 1}]
