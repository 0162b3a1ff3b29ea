"""Which prompts are worth sampling next."""

import random
from collections.abc import Iterable, Sequence


class Curriculum:
    """Takes prompts in turn, and those that teach nothing less and less often.

    A group of completions that all earned the same has no advantage and no gradient. A
    prompt whose last groups were such is left out for one round, then two, four, eight, so
    that the time goes to prompts that the policy sometimes gets right. The same seed and
    the same rewards give the same order.
    """

    def __init__(self, ids: Iterable[str], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - an order, no secret
        self._due = dict.fromkeys(ids, 0)
        """The round in which a prompt takes part again."""
        self._flat = dict.fromkeys(self._due, 0)
        """Groups in a row that taught nothing."""

    def draw(self, count: int) -> list[str]:
        """The ``count`` prompts that are due first, in random order among equals."""
        ranked = sorted(self._due, key=lambda one: (self._due[one], self._random.random()))
        return ranked[:count]

    def learn(self, id_: str, rewards_G: Sequence[float | None]) -> None:  # noqa: N803
        """Note what the group of a prompt earned; None is a completion without a grade."""
        known = [reward for reward in rewards_G if reward is not None]
        flat = not known or max(known) - min(known) < 1e-6
        self._flat[id_] = self._flat[id_] + 1 if flat else 0
        self._due[id_] += 1 + (2 ** min(self._flat[id_] - 1, 6) if flat else 0)
