"""What TRL calls to get completions: the policy as it is now, sampled by the engine."""

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learner.dataset.sample import Sample
from learner.errors import TrainingError
from learner.rewards.grader import Grader
from learner.training import model
from learner.training.curriculum import Curriculum
from learner.training.rollouts import Names, Rollout, Sampling, resident, sample_groups
from serving.engine import Engine

ANSWER_TIMEOUT_S = 600.0
"""How long one group of completions may take."""

PATIENCE = 3
"""Steps in a row without one graded completion after which the job gives up."""


@dataclass(slots=True)
class Actor:
    """TRL's rollout function; it remembers its last step for the metrics.

    It chooses the prompts itself, by the curriculum: TRL's are only so many places.
    """

    runner: asyncio.Runner
    engine_url: str
    policy: Any
    samples: Mapping[str, Sample]
    sampling: Sampling
    grader: Grader
    curriculum: Curriculum
    directory: Path
    names: Names
    last: Sequence[Rollout] = field(default=())
    seconds: float = 0.0
    """How long the last sampling took, the adapter's way to the engine included."""
    _calls: int = 0
    _without_grades: int = 0

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:  # noqa: ARG002
        """``prompts`` has a place for every completion of the step."""
        began = time.perf_counter()
        chosen = self.curriculum.draw(len(prompts) // self.sampling.generations)
        groups = self.runner.run(self._sample([self.samples[one] for one in chosen]))
        for id_, group in zip(chosen, groups, strict=True):
            self.curriculum.learn(id_, [one.reward for one in group])
        self.last = [rollout for group in groups for rollout in group]
        self.seconds = time.perf_counter() - began
        self._check()
        return {
            "prompt_ids": [list(one.prompt_ids) for one in self.last],
            "completion_ids": [list(one.completion_ids) for one in self.last],
            "logprobs": [list(one.logprobs) for one in self.last],
            "reward": [one.reward for one in self.last],
        }

    async def _sample(self, asked: Sequence[Sample]) -> list[tuple[Rollout, ...]]:
        self._calls += 1
        name = self.names.of_call(self._calls)
        adapter = self.directory / name
        model.save(self.policy, adapter)
        # connections of its own: while the policy trains, the engine closes idle ones
        async with (
            Engine(self.engine_url, timeout_s=ANSWER_TIMEOUT_S) as engine,
            resident(engine, name, adapter),
        ):
            groups = await sample_groups(engine, name, asked, self.sampling, self.grader)
        shutil.rmtree(adapter)
        return groups

    def _check(self) -> None:
        refusals = [one.refusal for one in self.last if one.refusal is not None]
        if len(refusals) == len(self.last):
            raise TrainingError(f"the engine refused every prompt of a step: {refusals[0]}")
        graded = any(one.grade is not None for one in self.last)
        self._without_grades = 0 if graded else self._without_grades + 1
        if self._without_grades >= PATIENCE:
            raise TrainingError(f"no completion could be graded in {PATIENCE} steps in a row")

    def metrics(self) -> Mapping[str, Any]:
        """What the last sampling says, under the contract's names."""
        rewards_G = [one.reward for one in self.last if one.reward is not None]
        mean = sum(rewards_G) / len(rewards_G) if rewards_G else None
        tokens = sum(len(one.completion_ids) for one in self.last) / max(1, len(self.last))
        return {
            "train_mean_reward": mean,
            "critic_rewards_mean": mean,
            "completion_tokens_mean": tokens,
            "response_length_mean": tokens,
            "scores": {"train_reward_mean": mean},
            "ungraded": len(self.last) - len(rewards_G),
            "refused": sum(one.refusal is not None for one in self.last),
        }
