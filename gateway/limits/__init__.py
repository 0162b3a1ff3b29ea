"""How much a key may: requests, tokens, calls at once, and budgets of money and tokens.

``open_limits`` counts in a directory that all workers of one machine share, or in Redis.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Union

from gateway.errors import LimitsUnusable
from gateway.keys import Key, Spent
from gateway.limits.shared import SharedLimits
from gateway.limits.ticket import FREE, Ticket

if TYPE_CHECKING:
    from gateway.limits.remote import RemoteLimits

__all__ = ["FREE", "Limiter", "SharedLimits", "Ticket", "open_limits", "used_by"]

Limiter = Union[SharedLimits, "RemoteLimits"]
"""``remote`` says which; then ``admit`` has to be awaited."""


def open_limits(url: str, *, worker: str = "w0", now: Callable[[], int] | None = None) -> Limiter:
    """``url`` is a directory, or ``redis://`` or ``rediss://`` with host and port.

    ``now`` is in nanoseconds; left out, it is the clock of the machine that counts. Workers may
    bear the same name. Raises LimitsUnusable.
    """
    if url.startswith(("redis://", "rediss://")):
        try:
            from gateway.limits.remote import RemoteLimits
        except ImportError as error:
            raise LimitsUnusable("no client of Redis is installed: pip install redis") from error
        return RemoteLimits(url, worker=worker, now=now)
    scheme, colon, _ = url.partition("://")
    if colon:
        raise LimitsUnusable(f"limits: a directory, redis:// or rediss://, not {scheme}://")
    return SharedLimits(Path(url), now=now or time.time_ns)


async def used_by(limiter: Limiter, keys: Iterable[Key]) -> dict[str, tuple[Spent, ...] | None]:
    """What each key, by its id, has used of its budgets; None where nobody can say.

    Who did not answer for one is not asked for the next.
    """
    answers = True
    found: dict[str, tuple[Spent, ...] | None] = {}
    for key in keys:
        found[key.id] = None if key.budgets else ()
        if key.budgets and answers:
            try:
                found[key.id] = await limiter.used(key)
            except LimitsUnusable:
                answers = False
    return found
