"""What limits promise, whoever counts: the file of one machine, or Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BudgetSpent, GatewayError, RateLimited
from gateway.keys import Budget, Key, Limits, Spent, Window
from gateway.limits import Limiter, Ticket, open_limits
from tests.redis_process import RedisProcess, running_redis

NOW = datetime(2026, 9, 30, 23, 50, tzinfo=UTC)
SECOND = 10**9


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.at = int(NOW.timestamp()) * SECOND

    def __call__(self) -> int:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += round(seconds * SECOND)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["shared", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis").url)
    return str(tmp_path / "limits")


@pytest.fixture
async def limiter(url: str, clock: Clock) -> AsyncIterator[Limiter]:
    opened = open_limits(url, worker="w0", now=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def other(url: str, clock: Clock) -> AsyncIterator[Limiter]:
    """Another worker, of the same name even."""
    opened = open_limits(url, worker="w0", now=clock)
    yield opened
    await opened.close()


@pytest.fixture
def key_id(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """No two tests count the same key."""
    return str(tmp_path)


async def admit(limiter: Limiter, key: Key, *, tokens: int = 0, cost: float = 0.0) -> Ticket:
    if limiter.remote:
        return await limiter.admit(key, tokens=tokens, cost=cost)
    return limiter.admit(key, tokens=tokens, cost=cost)


async def refused(
    limiter: Limiter, key: Key, *, tokens: int = 0, cost: float = 0.0
) -> GatewayError:
    with pytest.raises((RateLimited, BudgetSpent)) as caught:
        await admit(limiter, key, tokens=tokens, cost=cost)
    return caught.value


async def admitted(limiter: Limiter, key: Key, *, tokens: int = 0, offered: int) -> int:
    """How many of so many are let in; each is over at once."""
    n = 0
    for _ in range(offered):
        try:
            (await admit(limiter, key, tokens=tokens)).settle(tokens, 0.0)
        except RateLimited:
            continue
        n += 1
    return n


async def eventually_used(limiter: Limiter, key: Key, *, tokens: int) -> tuple[Spent, ...]:
    """What is used, once what was settled has arrived."""
    async with asyncio.timeout(20):
        while (used := await limiter.used(key))[0].tokens != tokens:
            await asyncio.sleep(0.005)
    return used


async def eventually_admitted(limiter: Limiter, key: Key, *, tokens: int = 0) -> Ticket:
    async with asyncio.timeout(20):
        while True:
            try:
                return await admit(limiter, key, tokens=tokens)
            except GatewayError:
                await asyncio.sleep(0.005)


def limited(key_id: str, *budgets: Budget, **limits: int) -> Key:
    return Key(key_id, "helpdesk", "acme", limits=Limits(**limits), budgets=budgets)


async def test_a_key_without_limits_is_let_in_and_told_nothing(
    limiter: Limiter, key_id: str
) -> None:
    ticket = await admit(limiter, limited(key_id), tokens=10**9, cost=10**9)

    ticket.settle(10**9, 10**9)

    assert ticket.headers == []


@pytest.mark.parametrize("limit", [1, 7, 60, 97])
async def test_exactly_a_minutes_worth_of_requests_is_let_in_at_once(
    limiter: Limiter, other: Limiter, key_id: str, limit: int
) -> None:
    key = limited(key_id, requests_per_minute=limit)

    n = sum([await admitted(worker, key, offered=1) for worker in (limiter, other) * limit])

    assert n == limit


async def test_requests_flow_back_in_evenly(limiter: Limiter, clock: Clock, key_id: str) -> None:
    key = limited(key_id, requests_per_minute=60)
    await admitted(limiter, key, offered=60)

    found = []
    for seconds in (0.999, 0.001, 5.5, 0.5, 1000):
        clock.forward(seconds)
        found.append(await admitted(limiter, key, offered=70))

    assert found == [0, 1, 5, 1, 60]


async def test_a_refusal_says_what_is_used_and_when_to_come_back(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    key = limited(key_id, requests_per_minute=60)
    await admitted(limiter, key, offered=60)
    clock.forward(0.25)

    error = await refused(limiter, key)
    clock.forward(error.retry_after_s or 0)

    assert error.message == (
        "Rate limit reached for `helpdesk` on requests per min (RPM): Limit 60, Used 60, "
        "Requested 1. Please try again in 750ms."
    )
    assert error.retry_after_s == 0.75
    assert await admitted(limiter, key, offered=2) == 1


async def test_tokens_are_held_as_estimated_and_settled_as_they_were(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    key = limited(key_id, tokens_per_minute=600)
    ticket = await admit(limiter, key, tokens=500)
    error = await refused(limiter, key, tokens=200)

    ticket.settle(100, 0.0)
    after = await eventually_admitted(limiter, key, tokens=500)

    assert error.message == (
        "Rate limit reached for `helpdesk` on tokens per min (TPM): Limit 600, Used 500, "
        "Requested 200. Please try again in 10s."
    )
    assert error.retry_after_s == 10.0
    assert dict(after.headers)[b"x-ratelimit-remaining-tokens"] == b"0"


async def test_later_requests_pay_for_an_answer_longer_than_estimated(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    budget = Budget(Window.TOTAL, tokens=10**9)
    key = limited(key_id, budget, tokens_per_minute=600)

    (await admit(limiter, key, tokens=100)).settle(1200, 0.0)
    await eventually_used(limiter, key, tokens=1200)
    error = await refused(limiter, key, tokens=60)
    clock.forward(66)

    assert error.retry_after_s == 66.0
    await admit(limiter, key, tokens=60)


async def test_a_request_of_more_than_the_limit_is_told_that_waiting_does_not_help(
    limiter: Limiter, key_id: str
) -> None:
    key = limited(key_id, tokens_per_minute=600)

    error = await refused(limiter, key, tokens=601)

    assert error.message == (
        "Request too large for `helpdesk` on tokens per min (TPM): Limit 600, Requested 601. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    assert error.retry_after_s is None
    await admit(limiter, key, tokens=600)


async def test_no_more_run_at_once_than_may(limiter: Limiter, other: Limiter, key_id: str) -> None:
    key = limited(key_id, concurrency=2)
    first = await admit(limiter, key)
    await admit(other, key)

    error = await refused(other, key)
    first.settle(1, 0.0)
    await eventually_admitted(other, key)

    assert "concurrent requests: Limit 2, Used 2" in error.message
    assert error.retry_after_s == 1.0
    await refused(limiter, key)


async def test_a_ticket_ends_once(limiter: Limiter, key_id: str) -> None:
    key = limited(key_id, Budget(Window.TOTAL, tokens=1000), concurrency=2)
    ticket = await admit(limiter, key, tokens=10)

    ticket.settle(10, 0.0)
    ticket.settle(10, 0.0)
    ticket.cancel()
    used = await eventually_used(limiter, key, tokens=10)
    await admit(limiter, key)
    await admit(limiter, key)

    assert used[0].tokens == 10
    await refused(limiter, key)


async def test_a_cancelled_request_counts_as_a_request_alone(limiter: Limiter, key_id: str) -> None:
    key = limited(
        key_id, Budget(Window.TOTAL, tokens=100, money=1.0),
        requests_per_minute=2, tokens_per_minute=100, concurrency=1,
    )  # fmt: skip

    (await admit(limiter, key, tokens=100, cost=1.0)).cancel()
    ticket = await eventually_admitted(limiter, key, tokens=100)
    ticket.cancel()
    error = await refused(limiter, key)

    assert "requests per min (RPM): Limit 2, Used 2" in error.message
    assert [spent.tokens for spent in await limiter.used(key)] == [0]


async def test_what_is_under_way_is_held_of_the_budget(
    limiter: Limiter, other: Limiter, key_id: str
) -> None:
    key = limited(key_id, Budget(Window.DAY, money=1.0))
    running = await admit(limiter, key, cost=0.6)

    error = await refused(other, key, cost=0.5)
    running.settle(0, 0.5)
    await eventually_admitted(other, key)

    assert isinstance(error, BudgetSpent)
    assert "a budget of 1 per day. Used 0, held by running requests 0.6" in error.message
    assert error.retry_after_s == 1.0


async def test_a_spent_budget_says_when_it_begins_anew(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    key = limited(key_id, Budget(Window.HOUR, tokens=100), Budget(Window.MONTH, tokens=150))
    (await admit(limiter, key, tokens=100)).settle(100, 0.25)
    used = await eventually_used(limiter, key, tokens=100)

    error = await refused(limiter, key, tokens=1)
    clock.forward(600)

    assert "Used 100, held by running requests 0, requested 1" in error.message
    assert "It begins anew at 2026-10-01T00:00:00Z." in error.message
    assert error.retry_after_s == 600.0
    assert [(spent.window, spent.tokens, spent.money) for spent in used] == [
        (Window.HOUR, 100, 0.25),
        (Window.MONTH, 100, 0.25),
    ]
    await admit(limiter, key, tokens=100)


async def test_a_longer_window_goes_on_when_a_shorter_one_begins_anew(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    key = limited(key_id, Budget(Window.MINUTE, tokens=100), Budget(Window.HOUR, tokens=150))
    (await admit(limiter, key, tokens=100)).settle(100, 0.0)
    await eventually_used(limiter, key, tokens=100)

    clock.forward(60)
    error = await refused(limiter, key, tokens=51)

    assert "a budget of 150 tokens per hour. Used 100" in error.message
    assert [spent.tokens for spent in await limiter.used(key)] == [0, 100]
    await admit(limiter, key, tokens=50)


async def test_a_total_budget_never_begins_anew(
    limiter: Limiter, clock: Clock, key_id: str
) -> None:
    key = limited(key_id, Budget(Window.TOTAL, money=0.5))
    (await admit(limiter, key, tokens=1)).settle(1, 0.75)
    await eventually_used(limiter, key, tokens=1)

    clock.forward(400 * 86400)
    error = await refused(limiter, key)

    assert error.retry_after_s is None
    assert error.message.endswith("It does not begin anew.")


async def test_use_survives_the_workers(url: str, clock: Clock, key_id: str) -> None:
    key = limited(key_id, Budget(Window.MONTH, tokens=100), requests_per_minute=5)
    before = open_limits(url, worker="w0", now=clock)
    for _ in range(5):
        (await admit(before, key, tokens=15)).settle(20, 0.0)
    await before.close()

    after = open_limits(url, worker="w0", now=clock)
    error = await refused(after, key)
    used = await after.used(key)
    await after.close()

    assert "Limit 5, Used 5" in error.message
    assert used[0].tokens == 100


async def test_limits_may_change_while_they_are_counted(limiter: Limiter, key_id: str) -> None:
    tight = limited(key_id, requests_per_minute=60, concurrency=1)
    running = await admit(limiter, tight)

    roomy = limited(key_id, requests_per_minute=60, concurrency=2)
    await admit(limiter, roomy)
    error = await refused(limiter, roomy)
    running.settle(0, 0.0)

    assert "Limit 2, Used 2" in error.message
    await eventually_admitted(limiter, roomy)


async def test_the_headers_are_those_of_openai(limiter: Limiter, key_id: str) -> None:
    key = limited(key_id, requests_per_minute=10, tokens_per_minute=60_000)

    ticket = await admit(limiter, key, tokens=1_500)

    assert ticket.headers == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"9"),
        (b"x-ratelimit-reset-requests", b"6s"),
        (b"x-ratelimit-limit-tokens", b"60000"),
        (b"x-ratelimit-remaining-tokens", b"58500"),
        (b"x-ratelimit-reset-tokens", b"1.5s"),
    ]


async def test_nothing_is_let_in_by_a_limit_of_nothing(limiter: Limiter, key_id: str) -> None:
    for limit in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        await refused(limiter, limited(f"{key_id}{limit}", **{limit: 0}), tokens=1)


def family(key_id: str, **maker: Any) -> tuple[Key, Key, Key]:
    """A limited key and two that it has made, which may each do what it may."""
    parent = Key(key_id, "maker", "acme", **maker)
    one, other = (Key(f"{key_id}-{n}", n, "acme", **maker, within=parent) for n in ("one", "two"))
    return parent, one, other


async def test_keys_of_one_maker_spend_its_budget_together(
    limiter: Limiter, other: Limiter, key_id: str
) -> None:
    parent, one, two = family(key_id, budgets=(Budget(Window.DAY, tokens=100),))

    (await admit(limiter, one, tokens=60)).settle(70, 0.0)
    await eventually_used(limiter, parent, tokens=70)
    error = await refused(other, two, tokens=40)
    (await admit(other, two, tokens=30)).settle(30, 0.0)

    assert "`maker` has a budget of 100 tokens per day. Used 70" in str(error)
    await eventually_used(limiter, parent, tokens=100)
    await eventually_used(limiter, two, tokens=30)
    assert [spent.tokens for spent in await limiter.used(one)] == [70]
    assert "Used 100" in str(await refused(limiter, parent))


async def test_what_a_maker_has_no_room_for_is_not_held_of_its_key(
    limiter: Limiter, key_id: str
) -> None:
    parent, one, two = family(key_id, limits=Limits(concurrency=1))

    running = await admit(limiter, one)
    error = await refused(limiter, two)
    running.cancel()
    ticket = await eventually_admitted(limiter, two)

    assert "for `maker` on concurrent requests" in str(error)
    assert "for `maker`" in str(await refused(limiter, parent))
    ticket.settle(0, 0.0)
    await eventually_admitted(limiter, parent)


async def test_rates_of_keys_of_one_maker_add_up(limiter: Limiter, key_id: str) -> None:
    parent, one, two = family(key_id, limits=Limits(requests_per_minute=10))

    let_in = [await admitted(limiter, key, offered=7) for key in (one, two, parent)]

    assert let_in == [7, 3, 0]


@pytest.mark.parametrize(
    ("limits", "tokens", "left"),
    [
        (
            Limits(requests_per_minute=1, tokens_per_minute=60),
            30,
            {"requests": "0", "tokens": "30"},
        ),
        (
            Limits(requests_per_minute=2, tokens_per_minute=60),
            40,
            {"requests": "1", "tokens": "20"},
        ),
        (Limits(requests_per_minute=2, concurrency=1), 0, {"requests": "1"}),
    ],
)
async def test_a_refusal_says_what_is_left(
    limiter: Limiter, key_id: str, limits: Limits, tokens: int, left: dict[str, str]
) -> None:
    key = Key(key_id, "ci", "acme", limits=limits)
    ticket = await admit(limiter, key, tokens=tokens)

    error = await refused(limiter, key, tokens=tokens)

    assert isinstance(error, RateLimited)
    told = {name.decode(): value.decode() for name, value in error.rates}
    for what, number in left.items():
        assert told[f"x-ratelimit-remaining-{what}"] == number
    assert told.keys() == {name.decode() for name, _ in ticket.headers}
    ticket.cancel()
