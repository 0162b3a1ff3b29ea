from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from gateway.api.opinion import Opinion, answer_named, feedback
from gateway.errors import InvalidRequest
from gateway.log.record import Feedback
from gateway.settings import Metric

ID = UUID("01a1f951-32aa-7714-a187-b9e4ad3742e3")
OTHER = UUID("01a1f951-32b1-7a63-bab7-7a296b223182")
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
METRICS = {
    "solved": Metric(type="boolean"),
    "stars": Metric(type="float"),
    "booked": Metric(type="boolean", level="episode"),
}


def said(name: str, value: Any, metrics: dict[str, Metric] | None = None, **more: Any) -> Feedback:
    target = {"target": "invocation", "target_id": ID}
    opinion = Opinion(name=name, value=value, **(target | more))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return feedback(opinion, metrics or {}, feedback_id=OTHER, tenant="acme", at=at)


def test_scores_are_numbers_and_booleans_are_told_by_their_label() -> None:
    assert (said("stars", 4).score_value, said("stars", 4).score_label) == (4.0, None)
    assert (said("solved", True).score_value, said("solved", True).score_label) == (1.0, "true")
    assert (said("solved", False).score_value, said("solved", False).score_label) == (0.0, "false")


def test_a_category_is_a_label_without_a_value() -> None:
    given = said("tone", "rude", is_category=True, comment="all caps", tags={"a": "b"})

    assert (given.score_label, given.score_value) == ("rude", None)
    assert (given.explanation, given.tags) == ("all caps", {"a": "b"})


def test_a_demonstration_is_a_message_of_the_assistant() -> None:
    by_text, by_call = said("demonstration", "4"), said("demonstration", {"tool_calls": [CALL]})

    assert by_text.value == {"role": "assistant", "content": "4"}
    assert by_call.value == {"role": "assistant", "tool_calls": [CALL]}


def test_a_preference_holds_answers_by_id_or_by_word() -> None:
    pair = {"preferred": str(OTHER), "rejected": {"content": "no"}}

    given = said("preference", pair)

    assert given.value == {
        "preferred": f"chatcmpl-{OTHER.hex}",
        "rejected": {"role": "assistant", "content": "no"},
    }


BAD: list[tuple[str, Any, str]] = [
    ("stars", "many", "value"),
    ("stars", None, "value"),
    ("stars", [1], "value"),
    ("stars", 10**400, "value"),
    ("stars", float("nan"), "value"),
    ("comment", 1, "value"),
    ("reference", 1, "metric_name"),
    ("demonstration", "", "value"),
    ("demonstration", 7, "value"),
    ("demonstration", {"role": "user", "content": "x"}, "value.role"),
    ("demonstration", {"tool_calls": 7}, "value.tool_calls"),
    ("demonstration", {"tool_calls": [{"function": {"name": "f"}}]}, "value.tool_calls.0"),
    ("preference", "that one", "value"),
    ("preference", {"preferred": "a"}, "value"),
    ("preference", {"preferred": "a", "rejected": 7}, "value.rejected"),
    ("preference", {"preferred": "a", "rejected": {"content": "a"}}, "value.rejected"),
    (
        "preference",
        {"preferred": "a", "rejected": {"tool_calls": [{}]}},
        "value.rejected.tool_calls.0",
    ),
]


@pytest.mark.parametrize(("name", "value", "param"), BAD)
def test_what_does_not_hold_together_is_refused_by_its_field(
    name: str, value: Any, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        said(name, value)

    assert refused.value.param == param


def test_a_declared_metric_is_taken_as_it_was_declared() -> None:
    assert said("solved", 1, METRICS).score_label == "true"
    assert said("stars", 0.5, METRICS).score_value == 0.5
    assert said("booked", True, METRICS, target="episode").score_value == 1.0
    assert said("comment", "fine", METRICS).explanation == "fine"


@pytest.mark.parametrize(
    ("name", "value", "param", "message"),
    [
        ("star", 1, "metric_name", "declared are booked, solved, stars, and always comment"),
        ("solved", 0.5, "value", "must be true or false"),
        ("stars", True, "value", "must be a number"),
        ("booked", True, "episode_id", "is of one episode: give episode_id"),
    ],
)
def test_another_metric_than_the_declared_is_refused(
    name: str, value: Any, param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        said(name, value, METRICS)

    assert refused.value.param == param


def test_a_word_for_a_declared_metric_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must be a number"):
        said("stars", "many", METRICS, is_category=True)


@pytest.mark.parametrize("name", ["demonstration", "preference"])
def test_what_is_of_one_answer_is_not_of_an_episode(name: str) -> None:
    with pytest.raises(InvalidRequest, match="inference_id"):
        said(name, "x", target="episode")


def test_a_name_from_elsewhere_is_an_answer_only_if_it_can_be_nothing_else() -> None:
    trace_that_looks_like_v7 = ID.hex

    assert answer_named(f"chatcmpl-{ID.hex}") == ID
    assert answer_named(str(ID)) == ID
    assert answer_named(trace_that_looks_like_v7) is None
    assert answer_named("4bf92f35-77b3-4da6-a3ce-929d0e0e4736") is None
    assert answer_named("booking 7") is None
