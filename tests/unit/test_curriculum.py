"""Prompts take turns; those that teach nothing are left out for longer and longer."""

from itertools import pairwise

from learner.training.curriculum import Curriculum

IDS = ("a", "b", "c", "d")


def test_every_prompt_has_its_turn_before_any_has_two() -> None:
    curriculum = Curriculum(IDS, seed=1)
    drawn = []
    for _ in range(2):
        for one in curriculum.draw(2):
            curriculum.learn(one, [0.0, 1.0])
            drawn.append(one)

    assert sorted(drawn) == sorted(IDS)


def test_a_mastered_prompt_comes_less_and_less_often() -> None:
    curriculum = Curriculum(IDS, seed=1)
    rounds = []
    for number in range(40):
        [one] = curriculum.draw(1)
        curriculum.learn(one, [1.0, 1.0] if one == "a" else [0.0, 1.0])
        if one == "a":
            rounds.append(number)

    gaps = [later - earlier for earlier, later in pairwise(rounds)]
    assert len(rounds) < 10
    assert gaps == sorted(gaps)


def test_completions_without_a_grade_teach_nothing() -> None:
    curriculum = Curriculum(("a", "b"), seed=1)
    curriculum.learn("a", [None, None])
    curriculum.learn("b", [0.2, None, 0.7])

    assert curriculum.draw(1) == ["b"]


def test_the_same_seed_gives_the_same_order() -> None:
    orders = [Curriculum(IDS, seed=3).draw(4) for _ in range(2)]

    assert orders[0] == orders[1]
