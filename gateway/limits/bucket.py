"""A bucket that holds a minute's worth and refills continuously, kept as one moment.

The moment is when the bucket will be full again, in nanoseconds (GCRA's "theoretical arrival
time"). Taking n moves it n/limit of a minute into the future; what would move it beyond a
minute from now is not there to be taken. Division rounds down, so that exactly ``limit`` fits
into a full bucket whatever the limit is; what that gives away is less than a nanosecond a take.
"""

from gateway.limits.window import HOUR, MINUTE

LONGEST_DEBT = HOUR
"""Beyond it a debt is forgiven; it also bounds what a clock that is set back can do."""


def worth(n: int, limit: int) -> int:
    """How long ``n`` take to flow back in."""
    return n * MINUTE // limit


def indebted(full_at: int, now: int, n: int, limit: int) -> int:
    """The moment after ``n`` more were taken, whether they are there or not."""
    return min(max(full_at, now) + worth(n, limit), now + LONGEST_DEBT)


def missing(full_at: int, now: int, limit: int) -> int:
    """How many of ``limit`` are not there now, rounded up; more than ``limit`` in debt."""
    return -(-max(0, full_at - now) * limit // MINUTE)
