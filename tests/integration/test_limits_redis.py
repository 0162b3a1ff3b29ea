"""Limits in Redis when Redis, or a machine that counts in it, goes away."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gateway.errors import LimitsUnusable, RateLimited
from gateway.keys import Budget, Key, Limits, Window
from gateway.limits import open_limits
from gateway.limits.remote import RemoteLimits
from gateway.limits.wire import LEASE_S
from tests.integration.conftest import Gateway
from tests.redis_process import RedisProcess, running_redis

KEY = Key(
    "k", "helpdesk", "acme", limits=Limits(concurrency=2), budgets=(Budget(Window.TOTAL, 10**6),)
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with running_redis(tmp_path) as server:
        yield server


@asynccontextmanager
async def opened(url: str, ahead_s: int = 0) -> AsyncIterator[RemoteLimits]:
    limiter = open_limits(url, now=lambda: time.time_ns() + ahead_s * 10**9)
    assert isinstance(limiter, RemoteLimits)
    try:
        yield limiter
    finally:
        await limiter.close()


async def eventually_used(limiter: RemoteLimits, tokens: int) -> None:
    async with asyncio.timeout(30):
        while (await limiter.used(KEY))[0].tokens != tokens:
            await asyncio.sleep(0.01)


async def test_what_is_taken_while_redis_is_away_is_charged_when_it_is_back(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(redis.url) as limiter:
        before = await limiter.admit(KEY, tokens=10, cost=0.0)
        redis.stop()
        before.settle(11, 0.0)
        meanwhile = [await limiter.admit(KEY, tokens=10, cost=0.0) for _ in range(5)]
        for ticket in meanwhile:
            ticket.settle(12, 0.0)
        redis.start()
        await eventually_used(limiter, 11 + 5 * 12)
        checked = [await limiter.admit(KEY, tokens=10, cost=0.0) for _ in range(2)]
        with pytest.raises(RateLimited):
            await limiter.admit(KEY, tokens=10, cost=0.0)
        for ticket in checked:
            ticket.cancel()

    assert limiter.unchecked == 5
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1


async def test_calls_of_a_machine_that_died_count_until_their_lease_is_over(
    redis: RedisProcess,
) -> None:
    lost = open_limits(redis.url)
    assert isinstance(lost, RemoteLimits)
    for _ in range(2):
        await lost.admit(KEY, tokens=10, cost=0.0)

    async with opened(redis.url) as limiter:
        with pytest.raises(RateLimited, match="Limit 2, Used 2"):
            await limiter.admit(KEY, tokens=10, cost=0.0)
    async with opened(redis.url, ahead_s=LEASE_S + 1) as limiter:
        (await limiter.admit(KEY, tokens=10, cost=0.0)).cancel()
    await lost.close()


async def test_a_caller_that_is_gone_while_redis_is_asked_leaves_nothing_behind(
    redis: RedisProcess,
) -> None:
    async with opened(redis.url) as limiter:
        for _ in range(10):
            asking = asyncio.create_task(limiter.admit(KEY, tokens=10, cost=0.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking.cancel()
        async with asyncio.timeout(LEASE_S / 2):
            for _ in range(2):
                while True:
                    try:
                        await limiter.admit(KEY, tokens=10, cost=0.0)
                    except RateLimited:
                        await asyncio.sleep(0.01)
                    else:
                        break


async def test_redis_own_clock_counts_where_no_other_is_given(redis: RedisProcess) -> None:
    limiter = open_limits(redis.url)
    assert isinstance(limiter, RemoteLimits)
    key = Key("k", "k", "t", limits=Limits(1), budgets=(Budget(Window.MONTH, tokens=10),))

    (await limiter.admit(key, tokens=1, cost=0.0)).settle(3, 0.0)
    with pytest.raises(RateLimited) as caught:
        await limiter.admit(key, tokens=1, cost=0.0)
    await limiter.close()

    assert 0 < (caught.value.retry_after_s or 0) <= 60.0


def test_a_url_that_is_none_of_redis_is_refused() -> None:
    with pytest.raises(LimitsUnusable, match="not a URL of Redis"):
        open_limits("redis://127.0.0.1:port")


@pytest.fixture
def settings(redis: RedisProcess) -> dict[str, object]:
    return {"GATEWAY_LIMITS": redis.url}


async def test_what_is_let_in_unchecked_is_told(gateway: Gateway, redis: RedisProcess) -> None:
    limits = Limits(requests_per_minute=1)
    _, secret = gateway.keys.create("ci", tenant="acme", at=datetime.now(UTC), limits=limits)
    redis.stop()

    answers = [
        await gateway.post("/v1/chat/completions", gateway.body(), authorization=f"Bearer {secret}")
        for _ in range(2)
    ]
    told = await asyncio.to_thread(httpx.get, f"{gateway.url}/metrics")

    assert [answer.status_code for answer in answers] == [200, 200]
    assert "ratchet_limits_unchecked_total 2" in told.text.splitlines()
