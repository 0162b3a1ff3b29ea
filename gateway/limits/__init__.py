"""How much a key may: requests, tokens, calls at once, and budgets of money and tokens.

``open_limits`` counts in a directory that all workers of one machine share, or in Redis.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Union

from gateway.errors import LimitsUnusable
from gateway.limits.shared import SharedLimits
from gateway.limits.ticket import FREE, Spent, Ticket

if TYPE_CHECKING:
    from gateway.limits.remote import RemoteLimits

__all__ = ["FREE", "Limiter", "SharedLimits", "Spent", "Ticket", "open_limits"]

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
