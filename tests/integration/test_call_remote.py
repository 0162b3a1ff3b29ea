"""Calls whose limits are kept in Redis: they are let in a little later, in the same order."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.keys import Limits, Scope
from tests.integration.conftest import Gateway
from tests.redis_process import running_redis

PATH = "/v1/chat/completions"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[dict[str, object]]:
    with running_redis(tmp_path) as redis:
        yield {"GATEWAY_LIMITS": redis.url}


def headers(gateway: Gateway, limits: Limits) -> dict[str, str]:
    at = datetime.now(UTC)
    _, secret = gateway.keys.create(
        "small", tenant="acme", at=at, scopes={Scope.INFERENCE}, limits=limits
    )
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_are_let_in_and_counted(gateway: Gateway, stream: bool) -> None:
    key = headers(gateway, Limits(requests_per_minute=2))

    answers = [await gateway.post(PATH, gateway.body(stream=stream), **key) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert int(answers[2].headers["retry-after"]) > 0
    assert [record.status for record in gateway.spooled()] == [200, 200]


async def test_a_call_that_was_cut_gives_its_place_back(gateway: Gateway) -> None:
    key = headers(gateway, Limits(concurrency=1))
    gateway.vllm.hold = asyncio.Event()
    cut = asyncio.create_task(gateway.post(PATH, gateway.body(), **key))
    while not gateway.vllm.asked:
        await asyncio.sleep(0)
    cut.cancel()
    gateway.vllm.hold = None

    async with asyncio.timeout(10):
        while (await gateway.post(PATH, gateway.body(), **key)).status_code != 200:
            pass

    assert [record.status for record in gateway.spooled()] == [499, 200]
