"""What a request that was let in holds until it is over."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.http.exchange import Headers
from gateway.keys import Key, Window
from gateway.limits.bucket import left
from gateway.limits.window import SECOND

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


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has used up of the window that is running."""

    window: Window
    tokens: int
    money: float
    until: datetime | None
    """When it begins anew; None: never."""


@dataclass(frozen=True, slots=True)
class Level:
    """A key's buckets right after an admission, as moments when they are full again."""

    now: int
    requests_full: int
    tokens_full: int


def rate_headers(key: Key, level: Level) -> Headers:
    """``x-ratelimit-*`` of the limits that the key has."""
    now, headers = level.now, Headers()
    if (limit := key.limits.requests_per_minute) is not None:
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % left(level.requests_full, now, limit)),
            (b"x-ratelimit-reset-requests", span(level.requests_full - now)),
        )
    if (limit := key.limits.tokens_per_minute) is not None:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % left(level.tokens_full, now, limit)),
            (b"x-ratelimit-reset-tokens", span(level.tokens_full - now)),
        )
    return headers


def span(nanoseconds: int) -> bytes:
    """A duration in the words of OpenAI's headers: ``12ms``, ``1s``, ``1.5s``, ``6m0s``."""
    ms = max(0, -(-nanoseconds // (SECOND // 1000)))
    if ms < 1000:
        return b"%dms" % ms
    if ms < 60_000:
        return b"%gs" % (ms / 1000)
    return b"%dm%ds" % divmod(-(-ms // 1000), 60)
