"""The tool call grader: what earns marks, and that cheating does not."""

import json
from typing import Any

import pytest

from learner.dataset.sample import Message, Sample
from learner.errors import ConfigError, GradingError
from learner.rewards import Grade, ToolCall, from_config

REFERENCE = {"name": "book_table", "arguments": {"city": "Oslo", "people": 4}}


def sample(reference: Any = REFERENCE) -> Sample:
    return Sample(
        id="s1", messages=({"role": "user", "content": "a table"},), reference_answer=reference
    )


def call(name: str = "book_table", arguments: Any = None) -> dict[str, Any]:
    if arguments is None:
        arguments = REFERENCE["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": text}}


def says(*calls: dict[str, Any], content: str | None = None) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


async def graded(message: Message, reference: Any = REFERENCE) -> Grade:
    return await ToolCall().grade(sample(reference), message)


async def score(message: Message, reference: Any = REFERENCE) -> float:
    return round((await graded(message, reference)).score, 6)


async def test_the_reference_itself_gets_full_marks() -> None:
    grade = await graded(says(call()))

    assert grade.score == pytest.approx(1.0)
    assert dict(grade.parts) == {"parses": 1.0, "name": 1.0, "arguments": 1.0, "exact": 1.0}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (says(call(arguments={"city": "Oslo"})), 0.1 + 0.3 + 0.6 * 2 / 3),
        (says(call(arguments={"city": "Oslo", "people": 5})), 0.1 + 0.3 + 0.6 * 0.5),
        (says(call(arguments={"town": "Oslo", "people": 4})), 0.1 + 0.3 + 0.6 * 0.5),
        (says(call(arguments={})), 0.1 + 0.3),
        (says(call(name="cancel")), 0.1 + 0.6),
        (says(call(name="cancel", arguments={})), 0.1),
        (says(content="I booked a table in Oslo for 4."), 0.0),
        ({"role": "assistant", "content": None}, 0.0),
        ({"role": "assistant", "content": None, "tool_calls": None}, 0.0),
    ],
)
async def test_each_part_earns_its_weight(message: Message, expected: float) -> None:
    assert await score(message) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "wanted", "equal"),
    [
        (" oslo ", "Oslo", True),
        ("New  York", "new york", True),
        ("STRASSE", "straße", True),
        (2.0, 2, True),
        ("2", 2, False),
        (True, 1, False),
        (["a", "B"], ["A", "b"], True),
        (["b", "a"], ["a", "b"], False),
        ({"x": None, "y": 1}, {"y": 1}, True),
        ("Oslo", "Bergen", False),
    ],
)
async def test_values_compare_as_a_user_would(given: Any, wanted: Any, *, equal: bool) -> None:
    grade = await graded(
        says(call("t", {"value": given})), {"name": "t", "arguments": {"value": wanted}}
    )

    assert dict(grade.parts)["exact"] == equal


async def test_an_argument_given_as_null_counts_as_left_out() -> None:
    assert await score(says(call("t", {"note": None})), {"name": "t", "arguments": {}}) == 1.0


async def test_no_arguments_expected_and_none_given_is_right() -> None:
    assert await score(says(call("t", {})), {"name": "t"}) == 1.0


async def test_several_calls_match_in_any_order() -> None:
    reference = [{"name": "t", "arguments": {"a": 1}}, {"name": "t", "arguments": {"a": 2}}]

    swapped = await graded(says(call("t", {"a": 2}), call("t", {"a": 1})), reference)
    half = await graded(says(call("t", {"a": 2})), reference)

    assert swapped.score == pytest.approx(1.0)
    assert half.score == pytest.approx(0.1 + 0.3 * 0.5 + 0.6 * 2 / 3)
    assert dict(half.parts)["exact"] == 0.0


PLAINLY_WRONG_TOOL = says(call("cancel", {}))
PLAINLY_WRONG_ARGUMENTS = says(call(arguments={"city": "Rome", "people": 9}))

CHEATS = {
    "the right call twice": says(call(), call()),
    "the right call a hundred times": says(*[call()] * 100),
    "every tool there is": says(*[call(name) for name in ("a", "b", "book_table", "cancel")]),
    "the call as text": says(content='<tool_call>{"name": "book_table"}</tool_call>'),
    "an array of arguments": says(call(arguments='[{"city": "Oslo", "people": 4}]')),
    "arguments within a string": says(call(arguments=json.dumps(json.dumps({"city": "Oslo"})))),
    "a good call and a broken one": says(call(), call(arguments="{")),
    "endless nesting": says(call(arguments='{"a":' * 3000)),
    "endless digits": says(call(arguments='{"people": ' + "4" * 10_000 + "}")),
    "megabytes": says(call(arguments=json.dumps({"city": "Oslo", "pad": "x" * 1_000_000}))),
    "not a number": says(call(arguments='{"people": NaN}')),
    "no name": says({"type": "function", "function": {"arguments": "{}"}}),
    "no function": says({"type": "function"}),
    "calls that are text": {"role": "assistant", "content": None, "tool_calls": "book_table"},
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS.keys())
async def test_cheating_scores_no_more_than_a_plainly_wrong_answer(cheat: Message) -> None:
    assert await score(cheat) <= await score(PLAINLY_WRONG_TOOL)


async def test_spraying_arguments_scores_no_more_than_wrong_ones() -> None:
    spray = {f"argument_{number}": number for number in range(50)} | REFERENCE["arguments"]  # type: ignore[operator]

    assert await score(says(call(arguments=spray))) <= await score(PLAINLY_WRONG_ARGUMENTS)


@pytest.mark.parametrize(
    "reference",
    [None, [], "book_table", 3, {"arguments": {}}, {"name": "t", "arguments": "no object"}, [None]],
)
async def test_a_reference_that_is_no_call_leaves_the_sample_ungraded(reference: Any) -> None:
    with pytest.raises(GradingError, match="s1"):
        await graded(says(call()), reference)


async def test_configured_weights_count() -> None:
    grader = from_config({"type": "tool_call", "weights": {"parses": 0, "name": 1, "arguments": 1}})

    grade = await grader.grade(sample(), says(call(arguments={})))

    assert grade.score == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "reward.type is None; it must be one of: tool_call"),
        ({"type": "tool-call"}, "must be one of: tool_call"),
        ({"type": "tool_call", "weights": {"name": -1}}, "reward.weights.name"),
        ({"type": "tool_call", "weights": {"names": 1}}, "reward.weights.names"),
        (
            {"type": "tool_call", "weights": {"parses": 0, "name": 0, "arguments": 0}},
            "not all 0",
        ),
    ],
)
def test_a_wrong_reward_names_the_field(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        from_config(config)
