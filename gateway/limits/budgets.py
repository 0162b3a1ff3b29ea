"""A key's budgets over the words of its slot."""

from gateway.errors import BudgetSpent
from gateway.keys import Key, Spent, Window
from gateway.limits.refusal import Claim, money_spent, tokens_spent
from gateway.limits.table import (
    MONEY_HELD,
    MONEY_KEPT,
    TOKENS_HELD,
    TOKENS_KEPT,
    WINDOWS,
    Words,
)
from gateway.limits.ticket import MONEY
from gateway.limits.window import NEVER, bounds, moment

_PLACE = {window: WINDOWS + 3 * n for n, window in enumerate(Window)}


class Purse:
    """What is used and what is held of budgets. Call it under the slot's lock.

    A request under way holds its estimate of every budget, whichever window it began in; what it
    took in truth is charged to the windows it ends in.
    """

    __slots__ = ("_budgets", "_key", "_places", "_words")

    def __init__(self, key: Key, words: Words) -> None:
        self._key = key
        self._words = words
        self._budgets = key.budgets
        self._places = {
            _PLACE[window]: (window, 0, 0) for window in sorted({b.window for b in key.budgets})
        }

    def refusal(self, now: int, tokens: int, money: int) -> BudgetSpent | None:
        """Why the estimate does not fit beside what is used and what others hold."""
        self._turn(now)
        words = self._words
        for budget in self._budgets:
            place = _PLACE[budget.window]
            used, held = words[place + 1], words[TOKENS_KEPT]
            if lacks(budget.tokens, used + held, tokens):
                claim = Claim(used, held, tokens, now, self._places[place][2])
                return tokens_spent(self._key, budget, claim)
            used, held = words[place + 2], words[MONEY_KEPT]
            if lacks(parts(budget.money), used + held, money):
                claim = Claim(used, held, money, now, self._places[place][2])
                return money_spent(self._key, budget, claim)
        return None

    def hold(self, cell: int, tokens: int, money: int) -> None:
        """Keep an estimate from others; less than nothing gives it back."""
        words = self._words
        words[cell + TOKENS_HELD] += tokens
        words[cell + MONEY_HELD] += money
        words[TOKENS_KEPT] += tokens
        words[MONEY_KEPT] += money

    def charge(self, now: int, tokens: int, money: int) -> None:
        """Count what was used in truth."""
        self._turn(now)
        words = self._words
        for place in self._places:
            words[place + 1] += tokens
            words[place + 2] += money

    def _turn(self, now: int) -> None:
        """Begin the windows anew that have ended."""
        words = self._words
        for place, (window, start, end) in self._places.items():
            if not start <= now < end:
                start, end = bounds(window, now)  # noqa: PLW2901 - and remembered
                self._places[place] = window, start, end
            if words[place] != start:
                words[place + 1] = words[place + 2] = 0
                words[place] = start  # last: until then it is the old window


def lacks(limit: int | None, taken: int, requested: int) -> bool:
    """Whether a budget has no room; one that is used up has none even for nothing."""
    return limit is not None and (taken >= limit or taken + requested > limit)


def parts(money: float | None) -> int | None:
    return None if money is None else round(money * MONEY)


def spent(key: Key, words: Words | None, now: int) -> tuple[Spent, ...]:
    """What is used of the windows that the key has budgets for; ``words`` None: nothing yet."""
    found = []
    for window in Window:
        if all(budget.window != window for budget in key.budgets):
            continue
        place, (start, end) = _PLACE[window], bounds(window, now)
        tokens = money = 0
        if words is not None and words[place] == start:
            tokens, money = words[place + 1], words[place + 2]
        until = None if end == NEVER else moment(end)
        found.append(Spent(window, tokens, money / MONEY, until))
    return tuple(found)
