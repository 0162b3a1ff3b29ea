import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from serving.registry import EngineReport, EngineState
from tests.fakes.vllm import FakeVllm
from tests.integration.conftest import ALIAS, Gateway

PATH = "/v1/chat/completions"
SPARE = "spare"
SHADOW = {"GATEWAY_MODELS": {ALIAS: {"shadow": {"to": SPARE}, "price": {"input": 1, "output": 2}}}}
pytestmark = pytest.mark.parametrize("settings", [SHADOW])


@pytest.fixture
async def spare(gateway: Gateway) -> AsyncIterator[FakeVllm]:
    async with FakeVllm("other") as engine:
        at = datetime.now(UTC)
        gateway.registry.declare(SPARE, "other", "other", at)
        report = EngineReport("e1", engine.url, "other", EngineState.READY, frozenset(), at)
        gateway.registry.report(report)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
            while (await client.get(f"/v1/models/{SPARE}")).status_code != 200:
                pass
        yield engine


async def records(gateway: Gateway, n: int) -> list[Any]:
    """The spool's records, once there are so many."""
    async with asyncio.timeout(10):
        while len(gateway.spooled()) < n:
            await asyncio.sleep(0.01)
    return gateway.spooled()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_mirrored_call_is_answered_by_one_and_logged_of_both(
    gateway: Gateway, spare: FakeVllm, stream: bool
) -> None:
    body = gateway.body("hi", stream=stream, metadata={"task": "greeting"})

    answer = await gateway.post(PATH, body)

    first, second = await records(gateway, 2)
    assert "base: " in answer.text or "base:" in answer.text
    assert "other" not in answer.text
    assert (first.arm, first.stream, first.parent_id) == ("incumbent", stream, None)
    assert (second.arm, second.stream, second.parent_id) == ("shadow", False, first.id)
    assert (second.task, second.engine, second.status) == ("greeting", "e1", 200)
    assert (second.episode_id, second.propensity) == (first.episode_id, None)
    assert json.loads(bytes(second.response))["model"] == "other"
    assert not spare.asked[0].get("stream")


async def test_a_shadow_that_never_answers_holds_nobody_up(
    gateway: Gateway, spare: FakeVllm
) -> None:
    spare.hold = asyncio.Event()

    answers = [await gateway.post(PATH, gateway.body(str(n))) for n in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert [record.arm for record in gateway.spooled()] == ["incumbent"] * 3
    spare.hold.set()
    assert [one.arm for one in await records(gateway, 6)].count("shadow") == 3


async def test_what_is_not_to_be_stored_has_no_bodies_in_the_shadow_either(
    gateway: Gateway, spare: FakeVllm
) -> None:
    await gateway.post(PATH, gateway.body("my secret", store=False))

    for record in await records(gateway, 2):
        assert (bytes(record.request), bytes(record.response)) == (b"null", b"null")
        assert record.output_tokens == 3
    assert len(spare.asked) == 1


async def test_a_broken_shadow_is_a_record_of_that(gateway: Gateway, spare: FakeVllm) -> None:
    spare.drops = True

    answer = await gateway.post(PATH, gateway.body())

    shadow = (await records(gateway, 2))[1]
    assert answer.status_code == 200
    assert (shadow.status, shadow.error_type) == (503, "engine_unavailable")
