import numpy as np
import pytest

from learner.errors import EvaluationError
from learner.evaluation.compare import compare
from learner.evaluation.gate import Decision, judge
from learner.sections import GateSection

GATE = GateSection(min_gain=0.02, alpha=0.05)


def rewards(n: int, share: float, seed: int) -> list[float]:
    return [float(r) for r in np.random.default_rng(seed).random(n) < share]


def test_a_clear_gain_is_promoted() -> None:
    verdict = judge(compare(rewards(400, 0.5, 1), rewards(400, 0.9, 2), alpha=0.05, seed=0), GATE)

    assert verdict.decision is Decision.PROMOTE
    assert verdict.comparison.low > 0


def test_the_same_answers_are_rejected() -> None:
    same = rewards(400, 0.5, 1)

    verdict = judge(compare(same, same, alpha=0.05, seed=0), GATE)

    assert verdict.decision is Decision.REJECT
    assert verdict.comparison.gain == 0


def test_a_worse_candidate_is_rejected() -> None:
    verdict = judge(compare(rewards(400, 0.9, 1), rewards(400, 0.5, 2), alpha=0.05, seed=0), GATE)

    assert verdict.decision is Decision.REJECT


def test_too_few_samples_are_inconclusive_and_say_what_they_could_tell() -> None:
    comparison = compare(rewards(40, 0.5, 1), rewards(40, 0.55, 3), alpha=0.05, seed=0)

    verdict = judge(comparison, GATE)

    assert verdict.decision is Decision.INCONCLUSIVE
    assert comparison.mde > 0.1
    assert f"{comparison.mde:.3f}" in verdict.reason


def test_a_sure_but_small_gain_is_not_promoted() -> None:
    incumbent = [0.5] * 1000
    candidate = [0.51] * 1000

    verdict = judge(compare(incumbent, candidate, alpha=0.05, seed=0), GATE)

    assert verdict.decision is Decision.REJECT


def test_the_same_grades_give_the_same_verdict() -> None:
    old, new = rewards(200, 0.5, 1), rewards(200, 0.6, 2)

    assert compare(old, new, alpha=0.05, seed=7) == compare(old, new, alpha=0.05, seed=7)


def test_pairs_with_an_ungraded_side_are_left_out() -> None:
    old: list[float | None] = [1.0, None, 0.0] * 20
    new: list[float | None] = [1.0, 1.0, None] * 20

    assert compare(old, new, alpha=0.05, seed=0).n == 20


def test_too_few_pairs_give_no_verdict() -> None:
    with pytest.raises(EvaluationError, match="only 5 held-out"):
        compare([1.0] * 5, [1.0] * 5, alpha=0.05, seed=0)


def test_the_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    """A simulation: 95 % intervals of a true gain of 0.1 should miss it about 5 % of the time."""
    rng = np.random.default_rng(11)
    missed = 0
    for trial in range(100):
        old = rng.random(200) < 0.5
        new = np.where(rng.random(200) < 0.2, True, old)  # true gain: 0.2 * 0.5
        comparison = compare(
            [float(r) for r in old], [float(r) for r in new], alpha=0.05, seed=trial
        )
        missed += not comparison.low <= 0.1 <= comparison.high

    assert missed <= 12
