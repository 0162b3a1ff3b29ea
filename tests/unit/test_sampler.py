"""Asking an engine for answers and grading them, against a fake vLLM."""

import json
from typing import Any

import pytest

from learner.dataset.sample import Sample
from learner.evaluation.sampler import Failure, answer, grade_all
from learner.rewards import ToolCall
from serving.engine import Engine
from serving.errors import EngineUnavailable
from tests.fakes.vllm import FakeVllm

TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {}}},)


def sample(number: int, reference: Any = None) -> Sample:
    return Sample(
        id=f"s{number}",
        messages=({"role": "user", "content": str(number)},),
        tools=TOOLS,
        reference_answer=reference or {"name": "add", "arguments": {"n": number}},
    )


def adds(body: dict[str, Any]) -> dict[str, Any]:
    """Calls ``add`` with the number asked for, but with 0 for every odd one."""
    number = int(body["messages"][-1]["content"])
    arguments = json.dumps({"n": 0 if number % 2 else number})
    function = {"name": "add", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }


async def test_answers_come_in_the_order_of_the_samples() -> None:
    samples = [sample(number) for number in range(20)]

    async with FakeVllm("base", answer=adds) as vllm, Engine(vllm.url) as engine:
        answers = await answer(engine, "base", samples, max_tokens=16, concurrency=3)
        report = await grade_all(ToolCall(), samples, answers)

    assert report.part("exact") == pytest.approx(0.5)
    assert [grade.score == 1.0 for grade in report.graded] == [True, False] * 10
    assert (report.ungraded, report.unanswered) == (0, 0)


async def test_the_engine_gets_tools_and_limits() -> None:
    async with FakeVllm("base", answer=adds) as vllm, Engine(vllm.url) as engine:
        await answer(engine, "base", [sample(1)], max_tokens=16, concurrency=1)

        [asked] = vllm.asked
    assert asked["tools"] == list(TOOLS)
    assert (asked["max_tokens"], asked["temperature"]) == (16, 0.0)


async def test_a_refused_sample_is_no_answer_of_the_model() -> None:
    async with FakeVllm("base", answer=adds) as vllm, Engine(vllm.url) as engine:
        answers = await answer(engine, "nobody", [sample(2)], max_tokens=16, concurrency=1)
        report = await grade_all(ToolCall(), [sample(2)], answers)

    assert isinstance(answers[0], Failure)
    assert (report.reward, report.ungraded, report.unanswered) == (None, 0, 1)


async def test_what_the_grader_cannot_decide_is_counted_and_never_a_zero() -> None:
    samples = [sample(2), sample(4, reference="not a call")]

    async with FakeVllm("base", answer=adds) as vllm, Engine(vllm.url) as engine:
        answers = await answer(engine, "base", samples, max_tokens=16, concurrency=2)
    report = await grade_all(ToolCall(), samples, answers)

    assert (report.reward, report.ungraded) == (1.0, 1)


async def test_an_engine_that_is_down_ends_the_evaluation() -> None:
    async with FakeVllm("base", answer=adds) as vllm:
        url = vllm.url

    async with Engine(url) as engine:
        with pytest.raises(EngineUnavailable):
            await answer(engine, "base", [sample(1), sample(2)], max_tokens=16, concurrency=2)
