"""Rollouts from a fake vLLM: groups, grades, names, and what becomes of refusals."""

from pathlib import Path
from typing import Any

from learner.dataset.sample import Sample
from learner.rewards import ToolCall
from learner.training.rollouts import (
    Names,
    Sampling,
    forget,
    gradable,
    resident,
    sample_groups,
)
from serving.engine import Engine
from tests.fakes.vllm import FakeVllm

SAMPLING = Sampling(generations=3, temperature=1.0, max_tokens=8, placeholder=9)
ADAPTER = Path("/adapters/one")


def sample(id_: str, reference: Any) -> Sample:
    return Sample(id=id_, messages=({"role": "user", "content": id_},), reference_answer=reference)


def calls_t(body: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "t", "arguments": "{}"}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}


GOOD = sample("good", {"name": "t", "arguments": {}})
BAD = sample("bad", {"name": "other", "arguments": {"a": 1}})
UNKNOWN = sample("unknown", None)


async def test_each_sample_yields_a_graded_group() -> None:
    async with FakeVllm("base", answer=calls_t) as vllm, Engine(vllm.url) as engine:
        groups = await sample_groups(engine, "base", [GOOD, BAD], SAMPLING, ToolCall())

    assert [[one.reward for one in group] for group in groups] == [[1.0] * 3, [0.1] * 3]
    assert groups[0][0].ids == (1, 2, 3, 4, 5)
    assert groups[0][0].logprobs == (-0.5, -0.5)


async def test_what_cannot_be_graded_has_no_reward() -> None:
    async with FakeVllm("base", answer=calls_t) as vllm, Engine(vllm.url) as engine:
        [group] = await sample_groups(engine, "base", [UNKNOWN], SAMPLING, ToolCall())

    assert [one.reward for one in group] == [None] * 3


async def test_a_refused_prompt_yields_a_group_without_rewards() -> None:
    async with FakeVllm("base") as vllm, Engine(vllm.url) as engine:
        [group] = await sample_groups(engine, "nobody", [GOOD], SAMPLING, ToolCall())

    assert [(one.reward, one.completion_ids) for one in group] == [(None, (9,))] * 3
    assert "does not exist" in (group[0].refusal or "")


async def test_samples_that_the_grader_cannot_judge_are_left_out() -> None:
    assert await gradable(ToolCall(), [GOOD, UNKNOWN, BAD]) == (GOOD, BAD)


async def test_an_adapter_is_in_the_engine_for_the_block_alone() -> None:
    async with FakeVllm("base") as vllm, Engine(vllm.url) as engine:
        async with resident(engine, "one", ADAPTER):
            during = await engine.resident()
        after = await engine.resident()

    assert (during, after) == ({"one"}, set())


async def test_only_the_leftovers_of_the_same_job_are_unloaded() -> None:
    mine, other = Names.of(Path("/jobs/1"), "first"), Names.of(Path("/jobs/2"), "first")

    async with FakeVllm("base") as vllm, Engine(vllm.url) as engine:
        for name in (mine.of_call(1), mine.of_call(2), other.of_call(1)):
            await engine.load(name, ADAPTER)
        await forget(vllm.url, Names.of(Path("/jobs/1"), "second"))
        left = await engine.resident()

    assert left == {other.of_call(1)}


def test_no_two_processes_share_a_name() -> None:
    first, second = (Names.of(Path("/jobs/1"), one).of_call(1) for one in ("a", "b"))

    assert first != second
