"""Is an adapter itself?"""

import math

import pytest

from serving.probe import Reference, judge, prompt_of

BASE = (-1.0, -2.0, -0.5)
OTHER = (-1.2, -2.0, -0.1)


def test_an_adapter_that_differs_from_the_base_is_itself() -> None:
    assert judge(BASE, BASE, OTHER, None) is None


def test_an_adapter_that_answers_as_the_base_is_not() -> None:
    assert judge(BASE, BASE, BASE, None) == "it answers as the base does"


def test_a_difference_as_small_as_the_bases_own_wandering_proves_nothing() -> None:
    wandering = (-1.01, -2.0, -0.5)
    adapter = (-1.0, -2.01, -0.5)

    assert judge(BASE, wandering, adapter, None) == "it answers as the base does"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite_are_refused(bad: float) -> None:
    assert judge(BASE, BASE, (-1.0, bad, -0.5), None) == "its answers are not finite"


def test_the_trainers_log_probabilities_must_be_met() -> None:
    close = Reference((1, 2, 3, 4), (-1.25, -2.05, -0.1))
    far = Reference((1, 2, 3, 4), (-0.2, -3.0, -1.1))

    assert judge(BASE, BASE, OTHER, close) is None
    assert "off the trainer's" in str(judge(BASE, BASE, OTHER, far))


def test_the_default_prompt_fits_any_vocabulary() -> None:
    prompt = prompt_of(100)

    assert all(0 <= token < 100 for token in prompt)
    assert len(set(prompt)) > 10
