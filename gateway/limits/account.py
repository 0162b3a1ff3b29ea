"""One key, as one worker counts for it: the hot path."""

from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, flock

from gateway.errors import RateLimited
from gateway.http.exchange import Headers
from gateway.keys import Key
from gateway.limits.bucket import indebted, missing
from gateway.limits.budgets import Purse
from gateway.limits.refusal import requests_too_fast, tokens_too_fast, too_large, too_many
from gateway.limits.table import (
    CELL,
    CELLS,
    DIGEST,
    LAST,
    RATE,
    REQUESTS,
    RUNNING,
    TAKEN,
    TOKENS,
    Words,
)
from gateway.limits.ticket import MONEY, RateHeaders
from gateway.limits.window import HOUR, MINUTE, NEVER


class SlotGone(Exception):
    """The slot has become another key's; claim one again."""


class Account:
    """A key's limits over its slot. The order of the stores is the table's; see there."""

    __slots__ = (
        "_cell", "_concurrency", "_digest", "_now", "_purse", "_rate", "_step", "_stripe",
        "_words", "key", "rates",
    )  # fmt: skip

    def __init__(
        self, key: Key, words: Words, *, stripe: int, worker: int, now: Callable[[], int]
    ) -> None:
        limits = key.limits
        self.key = key
        self.rates = RateHeaders(limits)
        self._words = words
        self._digest = words[DIGEST]
        self._stripe = stripe
        self._cell = CELLS + CELL * worker
        self._now = now
        rpm, self._rate = limits.requests_per_minute, limits.tokens_per_minute
        self._step = None if rpm is None else (MINUTE // rpm if rpm else 2 * MINUTE)
        self._concurrency = NEVER if limits.concurrency is None else limits.concurrency
        self._purse = Purse(key, words) if key.budgets else None
        words[RATE] = self._rate or 0

    def admit(self, tokens: int, cost: float) -> "SharedTicket":  # noqa: C901 - calls cost too
        rate, step, words, purse = self._rate, self._step, self._words, self._purse
        if rate is not None and tokens > rate:
            raise too_large(self.key, requested=tokens)
        requests_full = tokens_full = money = 0
        flock(self._stripe, LOCK_EX)
        try:
            now = self._now()
            if words[DIGEST] != self._digest:
                raise SlotGone
            if step is not None:
                full = words[REQUESTS]
                requests_full = (full if full > now else now) + step  # noqa: FURB136 - max() is slow
            if rate:
                full = words[TOKENS]
                full = full if full > now else now  # noqa: FURB136
                tokens_full = full + tokens * MINUTE // rate
            running, room = words[RUNNING], now + MINUTE
            if requests_full > room or tokens_full > room or running >= self._concurrency:
                raise self._refusal(now, tokens)
            if purse is not None:
                money = round(cost * MONEY)
                if refusal := purse.refusal(now, tokens, money):
                    raise refusal
            cell = self._cell
            words[cell] += 1
            words[RUNNING] = running + 1
            words[LAST] = now
            if step is not None:
                words[REQUESTS] = requests_full
            if rate:
                words[TOKENS] = tokens_full
                words[cell + TAKEN] += tokens
            if purse is not None:
                purse.hold(cell, tokens, money)
        finally:
            flock(self._stripe, LOCK_UN)
        return SharedTicket(self, tokens, money, (now, requests_full, tokens_full))

    def settle(self, held: int, held_money: int, tokens: int, cost: float) -> None:
        """Replace what is held by the truth. A full cell's first word goes down last."""
        words, cell, rate, purse = self._words, self._cell, self._rate, self._purse
        flock(self._stripe, LOCK_EX)
        try:
            if purse is not None:
                purse.charge(self._now(), tokens, round(cost * MONEY))
                purse.hold(cell, -held, -held_money)
            if rate:
                words[cell + TAKEN] -= held
                if tokens < held:
                    words[TOKENS] -= (held - tokens) * MINUTE // rate
                elif tokens > held:
                    words[TOKENS] = indebted(words[TOKENS], self._now(), tokens - held, rate)
            words[RUNNING] -= 1
            words[cell] -= 1
        finally:
            flock(self._stripe, LOCK_UN)

    def _refusal(self, now: int, tokens: int) -> RateLimited:
        refusal, words = self._reason(now, tokens), self._words
        refusal.rates = self.rates.at(now, max(words[REQUESTS], now), max(words[TOKENS], now))
        return refusal

    def _reason(self, now: int, tokens: int) -> RateLimited:
        """Why it is not let in: what takes longest to pass.

        What lies further ahead than anything can was written before the clock was set back.
        """
        key, words, rate, step = self.key, self._words, self._rate, self._step
        words[REQUESTS] = min(words[REQUESTS], now + MINUTE)
        words[TOKENS] = min(words[TOKENS], now + HOUR)
        full = max(words[REQUESTS], now)
        wait = 0 if step is None else full + step - now - MINUTE
        tokens_full = max(words[TOKENS], now)
        tokens_wait = tokens_full + tokens * MINUTE // rate - now - MINUTE if rate else 0
        if rate and tokens_wait > max(wait, 0):
            used = missing(tokens_full, now, rate)
            return tokens_too_fast(key, used=used, requested=tokens, wait=tokens_wait)
        if wait > 0:
            used = missing(full, now, key.limits.requests_per_minute or 0)
            return requests_too_fast(key, used=used, wait=wait)
        return too_many(key, used=words[RUNNING])


class SharedTicket:
    """See ``Ticket``."""

    __slots__ = ("_account", "_held", "_level", "_money", "_rates")

    def __init__(
        self, account: Account, held: int, money: int, level: tuple[int, int, int]
    ) -> None:
        self._account: Account | None = account
        self._rates = account.rates
        self._held = held
        self._money = money
        self._level = level

    @property
    def headers(self) -> Headers:
        return self._rates.at(*self._level)

    def settle(self, tokens: int, cost: float) -> None:
        account = self._account
        if account is not None:
            self._account = None
            account.settle(self._held, self._money, tokens, cost)

    def cancel(self) -> None:
        self.settle(0, 0.0)
