"""The protocol every reward speaks."""

from dataclasses import dataclass
from typing import Protocol

from learner.dataset.sample import Message, Sample


@dataclass(frozen=True, slots=True)
class Grade:
    """How good one answer is. ``parts`` are the graded components, before weighting."""

    score: float
    reason: str
    parts: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score {self.score!r} is outside [0, 1]")


class Grader(Protocol):
    """Judges one completion of one sample.

    A bad answer is a low Grade. A grader that cannot decide (no reference to compare
    with, a judge that refused) raises GradingError, so its fault is never the model's loss.
    """

    @property
    def name(self) -> str: ...

    async def grade(self, sample: Sample, completion: Message) -> Grade:
        """``completion`` is the assistant message: ``content`` and ``tool_calls``."""
        ...
