"""Two models on the same prompts: how much better is one, and how sure is that."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from learner.errors import EvaluationError

RESAMPLES = 10_000
POWER = 0.8
LEAST = 20
"""Pairs below which no interval is worth printing."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus incumbent, in mean reward over the same prompts."""

    n: int
    incumbent: float
    candidate: float
    low: float
    high: float
    mde: float
    """Minimum detectable effect: the true gain that this many pairs would find with 80 % power."""

    @property
    def gain(self) -> float:
        return self.candidate - self.incumbent


def compare(
    incumbent: Sequence[float | None], candidate: Sequence[float | None], *, alpha: float, seed: int
) -> Comparison:
    """Compare pairwise; a pair with an ungraded side (None) is left out.

    The interval is the percentile bootstrap's over pairs (Efron 1979), two-sided 1 - ``alpha``,
    seeded so that the same grades give the same verdict.
    Raises EvaluationError with fewer than LEAST pairs.
    """
    pairs = [
        (old, new)
        for old, new in zip(incumbent, candidate, strict=True)
        if old is not None and new is not None
    ]
    if len(pairs) < LEAST:
        raise EvaluationError(
            f"only {len(pairs)} held-out samples were graded for both models; {LEAST} are needed"
        )
    old_N, new_N = np.array(pairs).T
    gain_N = new_N - old_N
    rng = np.random.default_rng(seed)
    means_R = np.array([rng.choice(gain_N, size=len(gain_N)).mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means_R, [alpha / 2, 1 - alpha / 2])
    normal = NormalDist()
    factor = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)
    return Comparison(
        n=len(pairs),
        incumbent=float(old_N.mean()),
        candidate=float(new_N.mean()),
        low=float(low),
        high=float(high),
        mde=float(factor * gain_N.std(ddof=1) / np.sqrt(len(pairs))),
    )
