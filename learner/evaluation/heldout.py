"""The held-out exam: several models, the same prompts, through the serving path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learner.dataset.sample import Sample
from learner.evaluation.gate import Verdict
from learner.evaluation.sampler import Report, answer, grade_all
from learner.rewards import Grader
from serving.engine import Engine


@dataclass(frozen=True, slots=True)
class Exam:
    """What is asked, how it is graded, and how long an answer may get (tokens)."""

    samples: tuple[Sample, ...]
    grader: Grader
    max_tokens: int

    async def sit(self, engine: Engine, model: str) -> Report:
        """One model's grades, greedy, a sample each."""
        answers = await answer(engine, model, self.samples, max_tokens=self.max_tokens)
        return await grade_all(self.grader, self.samples, answers)


def scores(report: Report) -> list[float | None]:
    """One score per sample; None where there is no grade."""
    return [grade.score if grade else None for grade in report.grades]


def summary(report: Report) -> dict[str, float | int | None]:
    """The report in four numbers, as the demo and the API print them."""
    return {
        "exact": report.part("exact"),
        "reward": report.reward,
        "n": len(report.graded),
        "ungraded": report.ungraded + report.unanswered,
    }


def told(name: str, report: Report) -> str:
    """One line about one model."""
    exact = report.part("exact")
    share = "" if exact is None else f", exact {exact:.1%}"
    return f"{name}: mean reward {report.reward or 0.0:.3f}{share} on {len(report.graded)} samples"


def report_of(verdict: Verdict, reports: Mapping[str, Report]) -> dict[str, Any]:
    """Verdict and grades as the turn keeps them, in JSON's types."""
    comparison = verdict.comparison
    return {
        "decision": str(verdict.decision),
        "reason": verdict.reason,
        "gain": comparison.gain,
        "interval": [comparison.low, comparison.high],
        "mde": comparison.mde,
        "n": comparison.n,
        "held_out": {name: summary(report) for name, report in reports.items()},
    }


def thinned(samples: Sequence[Sample], limit: int) -> tuple[Sample, ...]:
    """At most ``limit`` samples, spread evenly: the same ones each time."""
    if len(samples) <= limit:
        return tuple(samples)
    return tuple(samples[index * len(samples) // limit] for index in range(limit))
