import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import BadQuery
from gateway.log import rows
from gateway.log.catalogue import QUERIES, query
from gateway.log.record import Erasure, Feedback, Incident, Invocation, Verdict, new_id
from gateway.log.store import Store
from tests.factories import NOW, invocation

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def logged(store: Store, calls: Sequence[Invocation] = (), said: Sequence[Feedback] = ()) -> None:
    tables = {
        "invocations": rows.table(
            [rows.invocation(one, one.ts, {}) for one in calls], rows.INVOCATIONS
        ),
        "feedback": rows.table([rows.feedback(one, NOW) for one in said], rows.FEEDBACK),
    }
    store.append({name: table for name, table in tables.items() if table.num_rows}, [], NOW)


def feedback(call: Invocation, score: float, **changes: Any) -> Feedback:
    fields = {
        "id": new_id(),
        "ts": NOW,
        "tenant": call.tenant,
        "target": "invocation",
        "target_id": call.id,
        "name": "quality",
        "score_value": score,
    }
    return Feedback(**(fields | changes))


def answer(store: Store, name: str, **given: str) -> list[dict[str, Any]]:
    asked = query(name).asked(given, NOW)
    return store.rows(asked.text, asked.parameters)


@pytest.mark.parametrize("name", list(QUERIES))
def test_every_query_is_answered_by_an_empty_log_and_says_what_it_takes(
    store: Store, name: str
) -> None:
    told = query(name).told()

    found = answer(store, name)

    assert len(found) == (1 if name == "storage" else 0)
    assert told["about"]
    assert all(parameter["about"] for parameter in told["parameters"])


def test_usage_adds_up_by_what_is_asked_for(store: Store) -> None:
    calls = [
        invocation(adapter="a--1", duration=1.0, cost=0.5),
        invocation(adapter="a--1", duration=3.0, cost=0.5, error_type="cut"),
        invocation(duration=2.0, tenant="other"),
        invocation(duration=2.0, ts=NOW - timedelta(days=40)),
    ]
    logged(store, calls)

    by_adapter = answer(store, "usage", by="adapter")
    of_tenant = answer(store, "usage", by="tenant", tenant="other")
    of_filter = answer(store, "usage", by="alias", where='{"adapter": "a--1"}')
    older = answer(store, "usage", by="origin", since="50d")

    assert [(one["adapter"], one["calls"], one["errors"], one["cost"]) for one in by_adapter] == [
        ("a--1", 2, 1, 1.0),
        (None, 1, 0, None),
    ]
    assert by_adapter[0]["input_tokens"] == 6
    assert by_adapter[0]["duration_p50_p95"][1] == pytest.approx(3.0, abs=0.5)
    assert [(one["tenant"], one["calls"]) for one in of_tenant] == [("other", 1)]
    assert [one["calls"] for one in of_filter] == [2]
    assert [one["calls"] for one in older] == [4]


def test_usage_is_counted_by_several_things_at_once(store: Store) -> None:
    calls = [
        invocation(key_id="key_1", arm="incumbent"),
        invocation(key_id="key_1", arm="shadow"),
        invocation(key_id="key_2", arm="incumbent", operation_name="embeddings"),
    ]
    logged(store, calls)

    by_all = answer(store, "usage", by="key,arm, operation")
    of_key = answer(store, "usage", by="key", where='{"key": "key_1", "arm": "incumbent"}')

    assert [(one["key"], one["arm"], one["operation"], one["calls"]) for one in by_all] == [
        ("key_1", "incumbent", "chat", 1),
        ("key_1", "shadow", "chat", 1),
        ("key_2", "incumbent", "embeddings", 1),
    ]
    assert [(one["key"], one["calls"]) for one in of_key] == [("key_1", 1)]


BLOCKED = [Verdict(guard="g", stage="after", action="block", reason="no")]
PASSED = [Verdict(guard="g", stage="after", action="allow", reason='said "action":"block"')]


def test_only_chats_that_were_given_and_not_blocked_are_candidates(store: Store) -> None:
    good = [invocation(), invocation(verdicts=PASSED), invocation(arm="canary")]
    others = [
        invocation(operation_name="text_completion"),
        invocation(operation_name="embeddings"),
        invocation(arm="shadow"),
        invocation(verdicts=BLOCKED),
        invocation(request=msgspec.Raw(b'{"model":"helpdesk","input":"hi"}')),
        invocation(response=msgspec.Raw(b'{"type":"message","content":[]}')),
    ]
    logged(store, [*good, *others])

    found = answer(store, "candidates", until=str(NOW + timedelta(hours=1)))

    assert {str(one["id"]) for one in found} == {str(one.id) for one in good}


def test_a_shadow_is_no_step_of_an_episode(store: Store) -> None:
    asked = invocation()
    shadow = invocation(
        arm="shadow", episode_id=asked.episode_id, parent_id=asked.id, ts=NOW - timedelta(seconds=1)
    )
    logged(store, [asked, shadow])

    (episode,) = answer(store, "episodes")
    (by_view,) = store.rows("SELECT steps, output_tokens::BIGINT AS tokens FROM episodes")

    assert (episode["steps"], by_view) == (1, {"steps": 1, "tokens": 2})


def test_the_tail_ends_with_the_newest_and_goes_on_with_what_enters_the_log(store: Store) -> None:
    calls = [invocation() for _ in range(5)]
    logged(store, [*calls[:2], *calls[3:]])
    newest = answer(store, "tail", limit="2")
    upto = max(one["ingest_ts"] for one in newest)
    store.append(
        {"invocations": rows.table([rows.invocation(calls[2], upto + HOUR, {})], rows.INVOCATIONS)},
        [],
        NOW,
    )

    behind = answer(store, "tail", after=str(upto))

    assert [str(one["id"]) for one in newest] == [str(call.id) for call in calls[3:]]
    assert [str(one["id"]) for one in behind] == [str(calls[2].id)], "slow, so it entered late"


def test_slow_and_failed_calls_are_found(store: Store) -> None:
    slow = invocation(duration=9.0)
    failed = [invocation(status=503, error_type="engine_unavailable") for _ in range(2)]
    logged(store, [invocation(duration=1.0), slow, *failed])

    slowest = answer(store, "slowest", limit="1")
    (error,) = answer(store, "errors")

    assert [str(one["id"]) for one in slowest] == [str(slow.id)]
    assert (error["error_type"], error["calls"]) == ("engine_unavailable", 2)
    assert str(error["last_id"]) in {str(one.id) for one in failed}


def test_feedback_is_told_by_what_answered_and_an_episode_by_its_first_call(store: Store) -> None:
    episode = new_id()
    first = invocation(episode_id=episode, adapter="a--1", ts=NOW - HOUR)
    then = invocation(episode_id=episode, adapter="a--2")
    base = invocation()
    stranger = invocation(tenant="other")
    said = [
        feedback(base, 0.0),
        feedback(base, 1.0),  # changed their mind: only this is current
        feedback(first, 0.5, target="episode", target_id=episode),
        feedback(then, 0.25),
        feedback(stranger, 1.0, tenant="default"),  # not theirs
    ]
    logged(store, [first, then, base, stranger], said)

    found = answer(store, "feedback")

    means = {one["adapter"]: (one["given"], one["mean"]) for one in found}
    assert means == {None: (1, 1.0), "a--1": (1, 0.5), "a--2": (1, 0.25)}


def test_candidates_are_behind_the_watermark_consenting_and_in_no_dataset(store: Store) -> None:
    old = invocation(ts=NOW - 3 * HOUR)
    good = invocation(ts=NOW - HOUR)
    taken = invocation(ts=NOW - HOUR)
    private = invocation(ts=NOW - HOUR, train_ok=False)
    failed = invocation(ts=NOW - HOUR, error_type="cut")
    fresh = invocation(ts=NOW)
    logged(store, [old, good, taken, private, failed, fresh])
    with store.transaction() as transaction:
        transaction.execute(
            "INSERT INTO dataset_items VALUES (uuid(), ?, 'train')", [str(taken.id)]
        )

    found = answer(store, "candidates", after="2h")

    assert [str(one["id"]) for one in found] == [str(good.id)]


def test_episodes_are_summed_up(store: Store) -> None:
    episode = new_id()
    logged(store, [invocation(episode_id=episode) for _ in range(3)] + [invocation(task="x")])

    (found,) = answer(store, "episodes", where='{"task": "helpdesk"}')

    assert (str(found["episode_id"]), found["steps"], found["output_tokens"]) == (
        str(episode),
        3,
        6,
    )


def test_the_log_names_what_it_lacks(store: Store) -> None:
    logged(store, [invocation()])
    incidents = [
        Incident(id=new_id(), ts=NOW, kind="dropped", n=7),
        Incident(id=new_id(), ts=NOW, kind="quarantined", n=2, segment="w0", at_byte=9),
    ]
    made = [rows.incident(one, NOW) for one in incidents]
    store.append({"incidents": rows.table(made, rows.INCIDENTS)}, [], NOW)
    erasure = Erasure(id=new_id(), ts=NOW, tenant="default", subject_id="s")
    with store.transaction() as transaction:
        transaction.execute(
            "INSERT INTO erasures VALUES (?, ?, ?, 'default', 'rows', 's', NULL, NULL)",
            [str(erasure.id), NOW.replace(tzinfo=None), NOW.replace(tzinfo=None)],
        )

    named = answer(store, "incidents")
    (storage,) = answer(store, "storage")

    assert [(one["kind"], one["at_byte"]) for one in named] == [
        ("quarantined", 9),
        ("dropped", None),
    ]
    assert (storage["invocations"], storage["dropped"], storage["quarantined"]) == (1, 7, 2)
    assert storage["erasures_open"] == 1


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("nope", {}, "there is no query 'nope'; there are tail, usage"),
        ("usage", {"byy": "day"}, "usage has no parameter byy; it has by, since"),
        ("usage", {"by": "moon"}, "by must be among day, hour"),
        ("usage", {"since": "last week"}, "since: must be a time"),
        ("usage", {"since": 'x"'}, "since"),
        ("usage", {"limit": "0"}, "limit must be a number from 1 on"),
        ("tail", {"where": '{"nope": 1}'}, "where.nope: no such field"),
        ("tail", {"where": "{"}, "where"),
    ],
)
def test_a_wrong_question_says_what_is_wrong(name: str, given: dict[str, str], told: str) -> None:
    with pytest.raises(BadQuery, match=told):
        query(name).asked(given, NOW)


def test_what_is_asked_with_is_never_part_of_the_sql(store: Store) -> None:
    evil = "' OR true; --"
    logged(store, [invocation()])

    asked = query("tail").asked({"tenant": evil, "where": json.dumps({"task": evil})}, NOW)

    assert evil not in asked.text
    assert store.rows(asked.text, asked.parameters) == []
