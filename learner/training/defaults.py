"""What ``auto`` means. Pure arithmetic on the size of the model and of the data."""

import math
from dataclasses import dataclass
from typing import TypeVar

from learner.launch.job import Auto, GrpoHyperparameters, SftHyperparameters

Number = TypeVar("Number", int, float)

SMALL = 50_000_000
"""Parameters up to which a whole batch of completions fits in memory at once."""


@dataclass(frozen=True, slots=True)
class SftPlan:
    """Hyperparameters with every ``auto`` resolved."""

    steps: int
    batch_size: int
    until_loss: float
    learning_rate: float
    checkpoint_every: int


@dataclass(frozen=True, slots=True)
class GrpoPlan:
    """Hyperparameters with every ``auto`` resolved."""

    steps: int
    prompts_per_step: int
    generations: int
    learning_rate: float
    micro_batch: int
    checkpoint_every: int
    schedule: str = "constant_with_warmup"
    loss_type: str = "dapo"
    scale_rewards: str = "group"

    @property
    def completions(self) -> int:
        """Completions of one step."""
        return self.prompts_per_step * self.generations


def sft_plan(chosen: SftHyperparameters, *, samples: int, parameters: int) -> SftPlan:
    batch_size = min(samples, _or(chosen.batch_size, 8))
    epochs = _or(chosen.epochs, 6)
    steps = math.ceil(samples / batch_size) * epochs
    return SftPlan(
        steps=steps,
        batch_size=batch_size,
        until_loss=_or(chosen.until_loss, 0.0),
        learning_rate=_or(chosen.learning_rate, learning_rate(parameters)),
        checkpoint_every=_or(chosen.checkpoint_every, max(10, steps // 4)),
    )


def grpo_plan(chosen: GrpoHyperparameters, *, samples: int, parameters: int) -> GrpoPlan:
    prompts = min(samples, _or(chosen.prompts_per_step, 8))
    steps = _or(chosen.steps, 40)
    completions = prompts * chosen.generations
    micro_batch = _or(chosen.micro_batch, completions if parameters <= SMALL else 8)
    return GrpoPlan(
        steps=steps,
        prompts_per_step=prompts,
        generations=chosen.generations,
        learning_rate=_or(chosen.learning_rate, learning_rate(parameters) / 3),
        micro_batch=_divisor(completions, micro_batch),
        checkpoint_every=_or(chosen.checkpoint_every, max(10, steps // 4)),
    )


def learning_rate(parameters: int) -> float:
    """For LoRA with Adam on demonstrations: 3e-3 at 2.5 million parameters, then 1 / sqrt.

    That is 1.5e-4 at a billion, in the range others use, and never below 5e-5. A tiny model
    needs the large steps: with 1e-3 the same demonstrations left it half convinced.
    """
    return max(5e-5, min(3e-3, 3e-3 * math.sqrt(2.5e6 / parameters)))


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of ``whole`` that is not above ``most``."""
    return next(part for part in range(min(whole, most), 0, -1) if whole % part == 0)


def _or(chosen: Number | Auto, automatic: Number) -> Number:
    return automatic if isinstance(chosen, str) else chosen
