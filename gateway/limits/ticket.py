"""What a request that was let in holds until it is over."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from gateway.http.exchange import Headers
from gateway.keys import Limits
from gateway.limits.window import MINUTE, MS

MONEY = 1_000_000_000
"""Money is counted in integers, of which the configured currency has this many."""


class Ticket(Protocol):
    """One admitted request. The first of ``settle`` and ``cancel`` counts, others do nothing."""

    @property
    def headers(self) -> Headers:
        """``x-ratelimit-*`` as OpenAI sends them, as of the admission."""

    def settle(self, tokens: int, cost: float) -> None:
        """The request is over and took this much: the truth replaces the estimate."""

    def cancel(self) -> None:
        """The request came to nothing: all but its count as a request is given back."""


class Free:
    """The ticket of everyone who has neither limits nor budgets."""

    __slots__ = ()

    @property
    def headers(self) -> Headers:
        return []

    def settle(self, tokens: int, cost: float) -> None:
        pass

    def cancel(self) -> None:
        pass


FREE = Free()


class Together:
    """A ticket of each key that one request counts for; its own key's comes first."""

    __slots__ = ("_tickets",)

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self._tickets = tickets

    @property
    def headers(self) -> Headers:
        return self._tickets[0].headers

    def settle(self, tokens: int, cost: float) -> None:
        for ticket in self._tickets:
            ticket.settle(tokens, cost)

    def cancel(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()


class RateHeaders:
    """Makes ``x-ratelimit-*`` of the limits that a key has."""

    __slots__ = ("_requests", "_rpm", "_tokens", "_tpm")

    def __init__(self, limits: Limits) -> None:
        self._rpm = limits.requests_per_minute
        self._tpm = limits.tokens_per_minute
        self._requests = b"x-ratelimit-limit-requests", b"%d" % (self._rpm or 0)
        self._tokens = b"x-ratelimit-limit-tokens", b"%d" % (self._tpm or 0)

    def at(self, now: int, requests_full: int, tokens_full: int) -> Headers:
        """``now``, and when the buckets will be full again."""
        headers = Headers()
        if (limit := self._rpm) is not None:
            away = requests_full - now
            headers += (
                self._requests,
                (b"x-ratelimit-remaining-requests", b"%d" % _left(limit, away)),
                (b"x-ratelimit-reset-requests", span(-(-away // MS))),
            )
        if (limit := self._tpm) is not None:
            away = tokens_full - now
            headers += (
                self._tokens,
                (b"x-ratelimit-remaining-tokens", b"%d" % _left(limit, away)),
                (b"x-ratelimit-reset-tokens", span(-(-away // MS))),
            )
        return headers


def _left(limit: int, away: int) -> int:
    """Of a bucket that is full so many nanoseconds from now; none of one in debt."""
    return max(0, limit + -away * limit // MINUTE)


@lru_cache(8192)
def span(ms: int) -> bytes:
    """A duration in the words of OpenAI's headers: ``12ms``, ``1s``, ``1.5s``, ``6m0s``."""
    if ms < 1000:
        return b"%dms" % ms
    if ms < 60_000:
        return b"%gs" % (ms / 1000)
    return b"%dm%ds" % divmod(-(-ms // 1000), 60)
