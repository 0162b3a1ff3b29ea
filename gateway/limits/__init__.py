"""How much a key may: requests, tokens, calls at once, and budgets of money and tokens.

``open_limits`` counts in a directory that all workers of one machine share, or in Redis.
"""

import time
from collections.abc import Callable
from pathlib import Path

from gateway.limits.shared import SharedLimits
from gateway.limits.ticket import FREE, Spent, Ticket

__all__ = ["FREE", "Limiter", "SharedLimits", "Spent", "Ticket", "open_limits"]

Limiter = SharedLimits


def open_limits(url: str, *, worker: str = "w0", now: Callable[[], int] = time.time_ns) -> Limiter:
    """``url`` is a directory. ``now`` is in nanoseconds.

    Workers may bear the same name. Raises LimitsUnusable.
    """
    return SharedLimits(Path(url), now=now)
