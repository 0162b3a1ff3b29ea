"""The arithmetic of buckets, windows and headers."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys import Limits, Window
from gateway.limits.bucket import indebted, missing, worth
from gateway.limits.ticket import RateHeaders, span
from gateway.limits.window import DAY, HOUR, MINUTE, NEVER, bounds

START = 1_800_000_000 * 10**9
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    limit=st.integers(1, 10**9),
    steps=st.lists(st.tuples(st.integers(0, 2 * MINUTE), st.floats(0, 1)), max_size=60),
)
def test_a_moment_says_what_a_bucket_of_fractions_would(
    limit: int, steps: list[tuple[int, float]]
) -> None:
    now, full_at, level = START, 0, Fraction(limit)

    for takes, (waited, share) in enumerate(steps, 1):
        now += waited
        level = min(Fraction(limit), level + Fraction(waited * limit, MINUTE))
        n = int(share * limit)
        moved = max(full_at, now) + worth(n, limit)
        # Each take may have been rounded down by a nanosecond, never up.
        slack = Fraction(takes * limit, MINUTE)
        if moved <= now + MINUTE:
            assert n <= level + slack
            level, full_at = max(level - n, Fraction(0)), moved
        else:
            assert n > level - slack


@pytest.mark.parametrize("limit", [1, 7, 60, 97, 9_999, 60_000])
def test_a_full_bucket_holds_its_limit_and_no_more(limit: int) -> None:
    full_at, taken = START, 0

    while full_at + worth(1, limit) <= START + MINUTE:
        full_at, taken = full_at + worth(1, limit), taken + 1

    assert taken == limit
    assert missing(full_at, START, limit) == limit


@given(limit=st.integers(1, 10**9), n=st.integers(0, 10**9), ago=st.integers(0, DAY))
def test_a_debt_is_paid_by_later_time_and_lasts_an_hour_at_most(
    limit: int, n: int, ago: int
) -> None:
    full_at = indebted(START - ago, START, n, limit)

    assert full_at == START + min(worth(n, limit), HOUR)


@given(window=st.sampled_from(sorted(set(Window) - {Window.TOTAL})), at=moments)
def test_windows_follow_each_other_without_a_gap(window: Window, at: datetime) -> None:
    now = int(at.timestamp()) * 10**9

    start, end = bounds(window, now)

    assert start <= now < end
    assert bounds(window, start) == bounds(window, end - 1) == (start, end)
    assert bounds(window, end)[0] == end
    assert bounds(window, start - 1)[1] == start


@given(at=moments)
def test_a_month_begins_on_its_first_day(at: datetime) -> None:
    start, end = bounds(Window.MONTH, int(at.timestamp()) * 10**9)

    first = datetime.fromtimestamp(start / 10**9, UTC)

    assert first == at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert timedelta(days=28) <= timedelta(microseconds=(end - start) / 1000) <= timedelta(days=31)


def test_a_total_has_no_end() -> None:
    assert bounds(Window.TOTAL, START) == (0, NEVER)


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, b"0ms"),
        (12, b"12ms"),
        (999, b"999ms"),
        (1000, b"1s"),
        (1500, b"1.5s"),
        (59_999, b"59.999s"),
        (60_000, b"1m0s"),
        (360_000, b"6m0s"),
        (360_001, b"6m1s"),
    ],
)
def test_durations_are_in_the_words_of_openai(ms: int, words: bytes) -> None:
    assert span(ms) == words


@given(limit=st.integers(1, 10**7), n=st.integers(0, 10**7))
def test_what_the_headers_say_remains_can_be_taken(limit: int, n: int) -> None:
    full_at = START + worth(min(n, limit), limit)

    headers = dict(RateHeaders(Limits(tokens_per_minute=limit)).at(START, 0, full_at))
    remaining = int(headers[b"x-ratelimit-remaining-tokens"])

    assert full_at + worth(remaining, limit) <= START + MINUTE
    assert remaining == limit - missing(full_at, START, limit)
