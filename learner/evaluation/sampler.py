"""Asks an engine for the answers of a set of samples, and grades them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from learner.dataset.sample import Message, Sample
from learner.errors import GradingError
from learner.rewards.grader import Grade, Grader
from serving.engine import Engine
from serving.errors import EngineRefused, EngineUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failure:
    """The engine refused this sample (too long a prompt, say). Not an answer of the model."""

    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """One grade per sample, in the samples' order; None where there is none."""

    grades: tuple[Grade | None, ...]
    unanswered: int
    """Samples that the engine refused."""

    @property
    def graded(self) -> tuple[Grade, ...]:
        return tuple(grade for grade in self.grades if grade is not None)

    @property
    def ungraded(self) -> int:
        """Samples that were answered and that the grader could not decide."""
        return len(self.grades) - len(self.graded) - self.unanswered

    @property
    def reward(self) -> float | None:
        """Mean score of the graded samples; None when there are none."""
        return _mean([grade.score for grade in self.graded])

    def part(self, name: str) -> float | None:
        """Mean of one part (``exact``, say) over the graded samples that have it."""
        return _mean([parts[name] for grade in self.graded if name in (parts := dict(grade.parts))])


async def answer(  # noqa: PLR0913 - a request's options are keywords
    engine: Engine,
    model: str,
    samples: Sequence[Sample],
    *,
    temperature: float = 0.0,
    max_tokens: int,
    concurrency: int = 32,
) -> tuple[Message | Failure, ...]:
    """Ask ``model`` every sample, ``concurrency`` at a time; answers in the samples' order.

    A sample the engine refuses becomes a Failure. EngineUnavailable ends the whole call.
    """

    async def ask(sample: Sample) -> Message | Failure:
        body = request(model, sample, temperature=temperature, max_tokens=max_tokens)
        try:
            completion = await engine.chat(body)
        except EngineRefused as refusal:
            return Failure(refusal.message)
        message: Message = completion["choices"][0]["message"]
        return message

    return tuple(await in_parallel(ask, samples, concurrency))


async def grade_all(
    grader: Grader,
    samples: Sequence[Sample],
    messages: Sequence[Message | Failure],
    *,
    concurrency: int = 32,
) -> Report:
    """Grade each answer. What the grader cannot decide stays ungraded and is counted."""

    async def judge(pair: tuple[Sample, Message | Failure]) -> Grade | None:
        sample, message = pair
        if isinstance(message, Failure):
            return None
        try:
            return await grader.grade(sample, message)
        except GradingError:
            return None

    grades = await in_parallel(judge, tuple(zip(samples, messages, strict=True)), concurrency)
    unanswered = sum(isinstance(message, Failure) for message in messages)
    return Report(tuple(grades), unanswered)


def request(model: str, sample: Sample, **options: Any) -> dict[str, Any]:
    """The body of ``/v1/chat/completions`` that asks ``sample``."""
    body = {"model": model, "messages": list(sample.messages), **options}
    return {**body, "tools": list(sample.tools)} if sample.tools else body


async def in_parallel(
    act: Callable[[Item], Awaitable[Result]], items: Sequence[Item], concurrency: int
) -> list[Result]:
    """``act`` on every item, at most ``concurrency`` at a time; results in the items' order.

    The first EngineUnavailable cancels the rest and is raised as itself.
    """
    turns = asyncio.Semaphore(concurrency)

    async def one(item: Item) -> Result:
        async with turns:
            return await act(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except* EngineUnavailable as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def _first(failures: BaseExceptionGroup[EngineUnavailable]) -> EngineUnavailable:
    return next(error for error in failures.exceptions if isinstance(error, EngineUnavailable))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
