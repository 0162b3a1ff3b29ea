"""Calendar windows of UTC, in nanoseconds since 1970."""

from datetime import UTC, datetime

from gateway.keys import Window

MS = 1_000_000
SECOND = 1000 * MS
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NEVER = (1 << 63) - 1

_SIZES = {Window.MINUTE: MINUTE, Window.HOUR: HOUR, Window.DAY: DAY}


def bounds(window: Window, now: int) -> tuple[int, int]:
    """When the window that ``now`` is in began, and when the next one does."""
    if window is Window.TOTAL:
        return 0, NEVER
    if window is Window.MONTH:
        today = moment(now)
        first = datetime(today.year, today.month, 1, tzinfo=UTC)
        years, month = divmod(today.month, 12)
        following = datetime(today.year + years, month + 1, 1, tzinfo=UTC)
        return int(first.timestamp()) * SECOND, int(following.timestamp()) * SECOND
    start = now - now % _SIZES[window]
    return start, start + _SIZES[window]


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // SECOND, UTC)
