"""Completions of the policy of the moment, sampled by the workbench engine and graded.

The engine renders the chat template and parses tool calls itself, so that what is graded
here is what a client would get. Imports no torch: the engine is warmed up while torch loads.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from learner.dataset.sample import Message, Sample
from learner.errors import GradingError
from learner.evaluation.sampler import in_parallel, request
from learner.launch.job import GrpoJob
from learner.rewards.grader import Grade, Grader
from serving.engine import Engine
from serving.errors import EngineError, EngineRefused

WARM_UP_S = 180.0
"""How long the first answer of the first adapter may take: it compiles kernels."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion; tokens as the engine saw them, the stop token included."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    grade: Grade | None
    """None when the grader could not decide, or the engine refused the prompt."""
    refusal: str | None = None
    """What the engine said when it refused."""

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.completion_ids

    @property
    def reward(self) -> float | None:
        return None if self.grade is None else self.grade.score


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one process's adapters in the engine. No name is ever used twice."""

    job: str
    """What the names of all processes of this job start with."""
    process: str

    @classmethod
    def of(cls, directory: Path, process: str) -> Self:
        digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()
        return cls(f"rollout-{digest[:8]}-", process)

    def of_call(self, call: int) -> str:
        return f"{self.job}{self.process}-{call}"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a group of completions is drawn."""

    generations: int
    temperature: float
    max_tokens: int
    placeholder: int
    """Token that stands for the completions of a prompt that the engine refused."""

    @property
    def options(self) -> Mapping[str, Any]:
        return {
            "n": self.generations,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "logprobs": True,
            "return_token_ids": True,
        }

    def nothing(self, refusal: str) -> tuple[Rollout, ...]:
        """What a refused prompt yields: no grade, so nothing is learnt from it."""
        nothing = Rollout((self.placeholder,), (self.placeholder,), (0.0,), None, refusal)
        return (nothing,) * self.generations


@asynccontextmanager
async def resident(engine: Engine, name: str, adapter: Path) -> AsyncIterator[None]:
    """The adapter of an absolute path is in the engine as ``name`` for the length of the block."""
    await engine.load(name, adapter)
    try:
        yield
    finally:
        await engine.unload(name)


async def sample_groups(
    engine: Engine, name: str, samples: Sequence[Sample], sampling: Sampling, grader: Grader
) -> list[tuple[Rollout, ...]]:
    """One group of graded completions per sample, all samples at once."""

    async def group(sample: Sample) -> tuple[Rollout, ...]:
        try:
            answer = await engine.chat(request(name, sample, **sampling.options))
        except EngineRefused as refusal:
            return sampling.nothing(refusal.message)
        return tuple(
            [await _rollout(answer, choice, sample, grader) for choice in answer["choices"]]
        )

    return await in_parallel(group, samples, concurrency=len(samples))


async def gradable(grader: Grader, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples that the grader can judge at all, found by grading an empty answer."""
    empty: Message = {"role": "assistant", "content": ""}
    grades = [await _grade(grader, sample, empty) for sample in samples]
    return tuple(sample for sample, grade in zip(samples, grades, strict=True) if grade)


async def forget(engine_url: str, names: Names) -> None:
    """Unload what an earlier, killed process of the same job left in the engine."""
    async with Engine(engine_url) as engine:
        for name in sorted(await engine.resident()):
            if name.startswith(names.job):
                await engine.unload(name)


def warm_up(job: GrpoJob, names: Names) -> threading.Thread | None:
    """Make the engine ready for adapters, in a thread; join it before the first rollout.

    None when there is no adapter yet to do it with. A failure is left for the first
    rollout to meet.
    """
    if job.init_adapter is None:
        return None
    adapter, name = job.init_adapter, names.of_call(0)
    body = {"model": name, "messages": [{"role": "user", "content": "."}], "max_tokens": 2}

    async def once() -> None:
        async with (
            Engine(job.engine.url, timeout_s=WARM_UP_S) as engine,
            resident(engine, name, adapter),
        ):
            await engine.chat(body)

    def run() -> None:
        with suppress(EngineError):
            asyncio.run(once())

    thread = threading.Thread(target=run, name="warm-up", daemon=True)
    thread.start()
    return thread


async def _rollout(
    answer: Mapping[str, Any], choice: Mapping[str, Any], sample: Sample, grader: Grader
) -> Rollout:
    return Rollout(
        prompt_ids=tuple(answer["prompt_token_ids"]),
        completion_ids=tuple(choice["token_ids"]),
        logprobs=tuple(token["logprob"] for token in choice["logprobs"]["content"]),
        grade=await _grade(grader, sample, choice["message"]),
    )


async def _grade(grader: Grader, sample: Sample, message: Message) -> Grade | None:
    try:
        return await grader.grade(sample, message)
    except GradingError:
        return None
