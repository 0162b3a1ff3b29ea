"""What goes to the scripts in Redis, and what comes back. Times there are in microseconds."""

from collections.abc import Iterable, Mapping

from gateway.errors import GatewayError, RateLimited
from gateway.keys import Budget, Key, Spent, Window
from gateway.limits.budgets import parts
from gateway.limits.refusal import (
    Claim,
    money_spent,
    requests_too_fast,
    tokens_spent,
    tokens_too_fast,
    too_many,
)
from gateway.limits.ticket import MONEY, RateHeaders
from gateway.limits.window import NEVER, bounds, moment

Argument = str | int
Reply = list[bytes | int]
Level = tuple[int, int, int]
"""Now, and when the buckets of requests and tokens will be full again, in nanoseconds."""

LEASE_S = 15
"""How long a worker's calls under way count without a sign of life from it."""
_KEPT_S = 63 * 24 * 3600  # no calendar window is longer
_US = 1000


def name(key: Key) -> str:
    return f"ratchet:limits:{{{key.id}}}"


def common(key: Key, cell: str, now: int) -> list[Argument]:
    """``now`` in nanoseconds; 0: Redis' own clock."""
    forever = any(budget.window is Window.TOTAL for budget in key.budgets)
    return [now // _US, LEASE_S * 1_000_000, cell, 0 if forever else _KEPT_S]


def admit_arguments(key: Key, cell: str, now: int, tokens: int, money: int) -> list[Argument]:
    limits = key.limits
    arguments = common(key, cell, now)
    arguments += (
        number(limits.requests_per_minute),
        number(limits.tokens_per_minute),
        number(limits.concurrency),
        tokens,
        money,
    )
    return arguments


def rows(budgets: Iterable[Budget], clock: int) -> list[Argument]:
    """Six arguments a budget: window, three starts to choose from, two limits."""
    found: list[Argument] = []
    for budget in budgets:
        start, following = bounds(budget.window, clock)
        before = start if budget.window is Window.TOTAL else bounds(budget.window, start - 1)[0]
        found += (budget.window.value, before // _US, start // _US, following // _US)
        found += (number(budget.tokens), number(parts(budget.money)))
    return found


def windows(key: Key, clock: int) -> list[Argument]:
    """A row for each window that the key has budgets of."""
    return rows((Budget(window) for window in sorted({b.window for b in key.budgets})), clock)


def read(key: Key, reply: Reply, *, tokens: int, money: int) -> Level | GatewayError:
    """The levels after an admission, or why there was none."""
    kind, now = reply[0], int(reply[1]) * _US
    first, second = int(reply[2]), int(reply[3])
    if kind == b"in":
        return now, first * _US, second * _US
    if kind != b"budget":
        refusal = _too_much(key, kind, used=first, requested=tokens, wait=second * _US)
        full = int(reply[4]) * _US, int(reply[5]) * _US
        refusal.rates = RateHeaders(key.limits).at(now, *full)
        return refusal
    budget = key.budgets[int(reply[4])]
    until = bounds(budget.window, now)[1]
    if reply[5] == b"tokens":
        return tokens_spent(key, budget, Claim(first, second, tokens, now, until))
    return money_spent(key, budget, Claim(first, second, money, now, until))


def _too_much(key: Key, kind: bytes | int, *, used: int, requested: int, wait: int) -> RateLimited:
    if kind == b"requests":
        return requests_too_fast(key, used=used, wait=wait)
    if kind == b"tokens":
        return tokens_too_fast(key, used=used, requested=requested, wait=wait)
    return too_many(key, used=used)


def spent(key: Key, fields: Mapping[bytes, bytes], clock: int) -> tuple[Spent, ...]:
    """What is used of the windows that the key has budgets for."""
    found = []
    for window in Window:
        if all(budget.window != window for budget in key.budgets):
            continue
        start, end = bounds(window, clock)
        field, tokens, money = window.value.encode(), 0, 0
        if int(fields.get(field, b"-1")) == start // _US:
            tokens, money = int(fields[field + b":tokens"]), int(fields[field + b":money"])
        until = None if end == NEVER else moment(end)
        found.append(Spent(window, tokens, money / MONEY, until))
    return tuple(found)


def number(limit: int | None) -> int:
    return -1 if limit is None else limit
