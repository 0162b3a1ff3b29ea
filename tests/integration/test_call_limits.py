import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.keys import Budget, Limits, Scope, Window
from tests.integration.conftest import ALIAS, Gateway

PATH = "/v1/chat/completions"
ONE_AT_ONCE = {"GATEWAY_CAPACITY": "1"}
PRICED = {"GATEWAY_MODELS": {ALIAS: {"price": {"input": 1_000_000, "output": 2_000_000}}}}


def headers(gateway: Gateway, **what: Any) -> dict[str, str]:
    """Of a key that may do only so much."""
    what.setdefault("scopes", {Scope.INFERENCE})
    _, secret = gateway.keys.create("small", tenant="acme", at=datetime.now(UTC), **what)
    return {"authorization": f"Bearer {secret}"}


async def test_beyond_its_rate_a_key_is_told_when_to_come_back(gateway: Gateway) -> None:
    key = headers(gateway, limits=Limits(requests_per_minute=2))

    answers = [await gateway.post(PATH, gateway.body(), **key) for _ in range(3)]

    first, _, refused = answers
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"])
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(gateway.vllm.asked) == len(gateway.spooled()) == 2


async def test_nonsense_gives_a_key_no_more_than_it_has(gateway: Gateway) -> None:
    key = headers(gateway, limits=Limits(tokens_per_minute=1000))

    answer = await gateway.post(PATH, gateway.body(max_tokens=-(10**6)), **key)

    assert int(answer.headers["x-ratelimit-remaining-tokens"]) <= 1000


async def test_a_budget_is_spent_by_what_answers_took(gateway: Gateway) -> None:
    budget = Budget(Window.TOTAL, tokens=600)
    key = headers(gateway, budgets=(budget,))
    body = gateway.body("hi", max_tokens=500)

    answers = [await gateway.post(PATH, body, **key) for _ in range(20)]

    # Each takes 8: 500 and more are reserved, and given back but for those.
    statuses = [answer.status_code for answer in answers]
    assert statuses == sorted(statuses)
    assert 5 < statuses.count(200) < 15
    assert answers[-1].json()["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize("settings", [PRICED])
async def test_a_budget_of_money_is_spent_by_what_answers_cost(gateway: Gateway) -> None:
    key = headers(gateway, budgets=(Budget(Window.TOTAL, money=60.0),))
    body = gateway.body("hi", max_tokens=1)

    answers = [await gateway.post(PATH, body, **key) for _ in range(8)]

    # 5 tokens read at 1 each, 2 written at 2 each; some 20 are held while a call is under way.
    assert {record.cost for record in gateway.spooled()} == {5 + 2 * 2}
    statuses = [answer.status_code for answer in answers]
    assert statuses == sorted(statuses)
    assert 3 <= statuses.count(200) <= 60 / 9


async def test_what_came_to_nothing_costs_nothing(gateway: Gateway) -> None:
    key = headers(gateway, limits=Limits(tokens_per_minute=100_000))
    gateway.vllm.status = 500
    await gateway.post(PATH, gateway.body(max_tokens=50_000), **key)
    gateway.vllm.status = None

    answer = await gateway.post(PATH, gateway.body(max_tokens=50_000), **key)

    assert answer.status_code == 200
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 49_000


async def test_a_key_has_so_many_calls_at_once(gateway: Gateway) -> None:
    key = headers(gateway, limits=Limits(concurrency=1))
    gateway.vllm.hold = asyncio.Event()
    running = asyncio.create_task(gateway.post(PATH, gateway.body(), **key))
    while not gateway.vllm.asked:
        await asyncio.sleep(0)

    refused = await gateway.post(PATH, gateway.body(), **key)
    gateway.vllm.hold.set()

    assert refused.status_code == 429
    assert (await running).status_code == 200
    assert (await gateway.post(PATH, gateway.body(), **key)).status_code == 200


@pytest.mark.parametrize("settings", [ONE_AT_ONCE])
async def test_at_capacity_calls_are_shed_and_health_is_not(gateway: Gateway) -> None:
    gateway.vllm.hold = asyncio.Event()
    running = asyncio.create_task(gateway.post(PATH, gateway.body()))
    while not gateway.vllm.asked:
        await asyncio.sleep(0)

    shed = await gateway.post(PATH, b"not even JSON".decode())
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        health = await client.get("/health/live")
    gateway.vllm.hold.set()

    assert (shed.status_code, shed.json()["error"]["code"]) == (503, "overloaded")
    assert int(shed.headers["retry-after"]) > 0
    assert health.status_code == 200
    assert (await running).status_code == 200


async def test_a_key_may_only_what_it_says(gateway: Gateway) -> None:
    trainer = headers(gateway, scopes={Scope.TRAIN})
    other = headers(gateway, models={"another"})

    by_scope = await gateway.post(PATH, gateway.body(), **trainer)
    by_model = await gateway.post(PATH, gateway.body(), **other)

    assert [by_scope.status_code, by_model.status_code] == [403, 403]
    assert "inference" in by_scope.json()["error"]["message"]
    assert gateway.vllm.asked == gateway.spooled() == []


async def test_the_same_holds_on_the_way_that_is_not_the_fast_one(gateway: Gateway) -> None:
    async def chunks() -> Any:
        yield b'{"model": "helpdesk", "messages": [{"role": "user",'
        yield b' "content": "hi"}], "stream": true}'

    key = headers(gateway, limits=Limits(requests_per_minute=1))
    async with httpx.AsyncClient(base_url=gateway.url, headers=key) as client:
        answers = [await client.post(PATH, content=chunks()) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].text.endswith("data: [DONE]\n\n")
    assert answers[0].headers["x-ratchet-engine"] == "e0"
    assert len(gateway.spooled()) == 1
