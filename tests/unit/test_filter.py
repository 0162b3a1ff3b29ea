import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.log import rows
from gateway.log.filter import Filter
from gateway.log.record import Edit, Feedback, Invocation, new_id
from gateway.log.store import Store
from learner.explain import explain
from tests.factories import NOW, invocation

KEYS = ["a", "b", "it's"]
VALUES = ["x", "y", "' OR 1=1 --"]
NAMES = ["helpdesk", "sales", "x'); --"]
ADAPTERS = ["sales--1", "sales--2", None]
METRICS = ["quality", "solved"]
HOURS = 48


class World:
    """A log of a few hundred random rows, and what it holds in Python."""

    def __init__(self, folder: Path, scheme: str) -> None:
        dice = random.Random(7)
        episodes = [new_id() for _ in range(40)]
        self.calls: list[Invocation] = []
        for _ in range(300):
            self.calls.append(self._call(dice, episodes))
        targets = [("invocation", call.id) for call in self.calls]
        targets += [("episode", episode) for episode in episodes]
        self.feedback = [self._feedback(dice, *dice.choice(targets)) for _ in range(250)]
        self.edits = {call.id: self._tags(dice) for call in dice.sample(self.calls, 30)}
        self.store = Store(f"{scheme}{folder / 'log'}", lake=folder / "lake")
        tables = {
            "invocations": rows.table(
                [rows.invocation(call, NOW, {}) for call in self.calls], rows.INVOCATIONS
            ),
            "feedback": rows.table(
                [rows.feedback(one, NOW) for one in self.feedback], rows.FEEDBACK
            ),
            "edits": rows.table([rows.edit(edit, NOW) for edit in self._edits()], rows.EDITS),
        }
        self.store.append(tables, [], NOW)

    def _edits(self) -> Iterator[Edit]:
        for call, newest in self.edits.items():
            for tags in ({"a": "superseded"}, newest):
                yield Edit(id=new_id(), ts=NOW, tenant="default", invocation_id=call, tags=tags)

    def _call(self, dice: random.Random, episodes: list[UUID]) -> Invocation:
        call = new_id()
        return invocation(
            id=call,
            ts=NOW - timedelta(hours=dice.randrange(HOURS)),
            tenant=dice.choice(["default", "default", "other"]),
            task=dice.choice(NAMES),
            # An episode may be named after its first call, and feedback on that call is not its.
            episode_id=dice.choice(
                [call, dice.choice(episodes), *(one.id for one in self.calls[-1:])]
            ),
            request_model=dice.choice(NAMES),
            adapter=dice.choice(ADAPTERS),
            status=dice.choice([200, 200, 400, 503, None]),
            error_type=dice.choice([None, "cut", "engine_error"]),
            tags=dice.choice([None, self._tags(dice)]),
        )

    def _tags(self, dice: random.Random) -> dict[str, str]:
        return {key: dice.choice(VALUES) for key in dice.sample(KEYS, dice.randrange(4))}

    def _feedback(self, dice: random.Random, target: str, target_id: UUID) -> Feedback:
        return Feedback(
            id=new_id(),
            ts=NOW,
            tenant=dice.choice(["default", "default", "other"]),
            target=target,
            target_id=target_id,
            name=dice.choice(METRICS),
            score_value=dice.choice([None, 0.0, 0.5, 1.0]),
            score_label=dice.choice([None, "good"]),
            source=dice.choice(["human", "judge"]),
        )

    def answer(self, where: dict[str, Any]) -> set[UUID]:
        condition = Filter.model_validate(where).sql(NOW)
        found = self.store.rows(
            f"SELECT i.id::VARCHAR AS id FROM invocations i WHERE {condition.text}",
            condition.parameters,
        )
        return {UUID(row["id"]) for row in found}

    def reference(self, where: dict[str, Any]) -> set[UUID]:
        return {call.id for call in self.calls if self._means(where, call)}

    def _means(self, where: dict[str, Any], call: Invocation) -> bool:
        tags = call.tags or {}
        tags = self.edits.get(call.id, tags)
        columns = {
            "task": call.task,
            "alias": call.request_model,
            "adapter": call.adapter,
            "error_type": call.error_type,
        }
        said = where.get("feedback", [])
        return (
            metadata_means(where.get("metadata"), tags)
            and time_means(where.get("time", {}), call.ts)
            and status_means(where.get("status"), call.status)
            and all(
                value in (where[name] if isinstance(where[name], list) else [where[name]])
                for name, value in columns.items()
                if name in where
            )
            and all(self._said(one, call) for one in (said if isinstance(said, list) else [said]))
        )

    def _said(self, where: dict[str, Any], call: Invocation) -> bool:
        current: dict[Any, Feedback] = {}
        for one in self.feedback:  # oldest first
            current[one.tenant, one.target_id, one.name, one.source] = one
        about = [
            one
            for one in current.values()
            if one.tenant == call.tenant
            and one.name == where["name"]
            and (one.target, one.target_id)
            in {("invocation", call.id), ("episode", call.episode_id)}
        ]
        if where.get("exists") is False:
            return not about
        return any(feedback_means(where, one) for one in about)


def metadata_means(where: dict[str, Any] | None, tags: dict[str, str]) -> bool:
    if where is None:
        return True
    if all(isinstance(value, str) for value in where.values()):
        return all(tags.get(key) == value for key, value in where.items())
    ((kind, rest),) = where.items()
    if kind in ("andAll", "orAll"):
        each = (metadata_means(one, tags) for one in rest)
        return all(each) if kind == "andAll" else any(each)
    ((key, value),) = rest.items()
    return (tags.get(key) == value) is (kind == "equals")


def time_means(where: dict[str, Any], ts: datetime) -> bool:
    def moment(text: str) -> datetime:
        if text.endswith("h"):
            return NOW - timedelta(hours=int(text[:-1]))
        return datetime.fromisoformat(text)

    return ("after" not in where or ts >= moment(where["after"])) and (
        "before" not in where or ts < moment(where["before"])
    )


def status_means(where: Any, status: int | None) -> bool:
    if where is None:
        return True
    if isinstance(where, dict):
        return status is not None and where.get("min", 0) <= status <= where.get("max", 999)
    return status in (where if isinstance(where, list) else [where])


def feedback_means(where: dict[str, Any], one: Feedback) -> bool:
    score, equals = one.score_value, where.get("equals")
    if "min" in where and not (score is not None and score >= where["min"]):
        return False
    if "max" in where and not (score is not None and score <= where["max"]):
        return False
    return equals is None or equals == (one.score_label if isinstance(equals, str) else score)


pair = st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map(lambda one: dict([one]))
one_pair = st.one_of(
    pair.map(lambda one: {"equals": one}), pair.map(lambda one: {"notEquals": one})
)
metadata = st.one_of(
    one_pair,
    st.lists(one_pair, min_size=1, max_size=3).map(lambda them: {"andAll": them}),
    st.lists(one_pair, min_size=1, max_size=3).map(lambda them: {"orAll": them}),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1),
)
hours = st.integers(0, HOURS)
moment = st.one_of(
    hours.map(lambda n: f"{n}h"), hours.map(lambda n: (NOW - timedelta(hours=n)).isoformat())
)


def some(values: list[Any]) -> st.SearchStrategy[Any]:
    one = st.sampled_from(values)
    return st.one_of(one, st.lists(one, min_size=1, max_size=2))


scored = st.fixed_dictionaries(
    {"name": st.sampled_from(METRICS)},
    optional={
        "min": st.sampled_from([0.0, 0.5]),
        "max": st.sampled_from([0.5, 1.0]),
        "equals": st.sampled_from([True, False, 0.5, "good"]),
    },
)
unsaid = st.sampled_from(METRICS).map(lambda name: {"name": name, "exists": False})
filters = st.fixed_dictionaries(
    {},
    optional={
        "metadata": metadata,
        "time": st.fixed_dictionaries({}, optional={"after": moment, "before": moment}),
        "task": some(NAMES),
        "alias": some(NAMES),
        "adapter": some(ADAPTERS),
        "status": st.one_of(
            some([200, 400, 503]), st.just({"min": 400}), st.just({"min": 200, "max": 499})
        ),
        "error_type": some([None, "cut"]),
        "feedback": st.one_of(
            scored, unsaid, st.lists(st.one_of(scored, unsaid), min_size=1, max_size=2)
        ),
    },
)


@pytest.fixture(scope="module", params=["", "ducklake:sqlite:"])
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("filter"), request.param)
    yield world
    world.store.close()


@settings(deadline=None, max_examples=60)
@given(where=filters)
def test_the_log_answers_a_filter_as_plain_python_would(
    world: World, where: dict[str, Any]
) -> None:
    assert world.answer(where) == world.reference(where)


@pytest.mark.parametrize(
    "where",
    [
        {"metadata": {"notEquals": {"a": "x"}}},
        {"metadata": {"orAll": [{"equals": {"a": "x"}}, {"notEquals": {"b": "y"}}]}},
        {"adapter": None},
        {"status": {"min": 400}},
        {"error_type": [None, "cut"]},
        {"time": {"after": "12h"}},
        {"feedback": {"name": "quality", "min": 0.5}},
        {"feedback": {"name": "solved", "equals": True}},
        {"feedback": [{"name": "quality"}, {"name": "solved", "exists": False}]},
    ],
)
def test_every_part_of_a_filter_takes_some_calls_and_leaves_some(
    world: World, where: dict[str, Any]
) -> None:
    found = world.answer(where)

    assert found == world.reference(where)
    assert 0 < len(found) < len(world.calls)


def test_bedrocks_own_key_and_plain_pairs_say_the_same() -> None:
    bedrock = {"andAll": [{"equals": {"task": "refund"}}, {"equals": {"lang": "de"}}]}

    verbatim = Filter.model_validate({"requestMetadataFilters": bedrock})
    short = Filter.model_validate({"metadata": {"task": "refund", "lang": "de"}})

    assert verbatim == short


def test_what_a_user_wrote_is_never_part_of_the_sql() -> None:
    evil = "'; DROP TABLE invocations; --"
    where = {
        "metadata": {evil: evil},
        "task": evil,
        "adapter": [evil, None],
        "feedback": {"name": evil, "equals": evil},
    }

    condition = Filter.model_validate(where).sql(NOW)

    assert "DROP" not in condition.text
    assert condition.text.count("?") == len(condition.parameters)


def test_a_time_without_a_zone_is_utc() -> None:
    (since,) = Filter.model_validate({"time": {"after": "2026-08-01"}}).sql(NOW).parameters
    (there,) = (
        Filter.model_validate({"time": {"after": "2026-08-01T02:00:00+02:00"}}).sql(NOW).parameters
    )

    assert since == there == datetime(2026, 8, 1, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"metdata": {}}, "metdata: no such setting; allowed are metadata, time, task"),
        ({"time": {"since": "7d"}}, "time.since: no such setting; allowed are after, before"),
        (
            {"metadata": {"andAll": [{"equal": {"a": "b"}}]}},
            "metadata.andAll.0.equal: no such setting; allowed are equals, notEquals",
        ),
        ({"feedback": "helpful"}, "feedback.0: must be a section of settings"),
        ({"metadata": {}}, "metadata: give exactly one of equals, notEquals, andAll, orAll"),
        (
            {"metadata": {"equals": {"a": "1"}, "notEquals": {"a": "2"}}},
            "metadata: give exactly one of equals, notEquals, andAll, orAll",
        ),
        ({"metadata": {"equals": {"a": "1", "b": "2"}}}, "metadata.equals: .* at most 1"),
        ({"metadata": {"andAll": [{"equals": {"a": "1"}}] * 17}}, "metadata.andAll: .*at most 16"),
        ({"metadata": {"paid": True}}, "paid: Input should be a valid string"),
        ({"time": {"after": "last week"}}, r"time.after: must be a time .* or how long ago"),
        ({"task": []}, "task: .* at least 1 item"),
        ({"status": "bad"}, "status.0: Input should be a valid integer"),
        (
            {"feedback": {"name": "quality", "exists": False, "min": 1}},
            "feedback.0: exists: false leaves nothing",
        ),
    ],
)
def test_a_wrong_filter_says_where_and_what(where: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        Filter.model_validate(where)

    line = explain(wrong.value, of=Filter)
    assert "\n" not in line
    assert re.search(told, line), line
