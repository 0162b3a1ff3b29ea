from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest

from serving.registry import EngineReport, EngineState, served_name
from tests.fakes.vllm import FakeVllm
from tests.integration.conftest import ALIAS, Gateway, free_port

PATH = "/v1/chat/completions"
SPARE = "spare"
FALLBACK = {"GATEWAY_MODELS": {ALIAS: {"fallbacks": [SPARE]}}}


@dataclass
class Pair:
    """Two engines of one base, of which the gateway always asks ``first`` first."""

    first: FakeVllm
    second: FakeVllm
    second_id: str


def report(gateway: Gateway, engine_id: str, url: str, *adapters: str, base: str = "base") -> None:
    gateway.registry.report(
        EngineReport(
            engine_id, url, base, EngineState.READY, frozenset(adapters), datetime.now(UTC)
        )
    )


async def answered_by(gateway: Gateway) -> str:
    answer = await gateway.post(PATH, gateway.body())
    assert answer.status_code == 200, answer.text
    return answer.headers["x-ratchet-engine"]


@pytest.fixture
async def pair(gateway: Gateway) -> AsyncIterator[Pair]:
    async with FakeVllm("base") as other:
        report(gateway, "e1", other.url)
        gateway.vllm.status = 500
        while (await gateway.post(PATH, gateway.body())).status_code != 200:
            pass  # it has not noticed the other one yet
        gateway.vllm.status = None
        first = await answered_by(gateway)
        engines = {"e0": gateway.vllm, "e1": other}
        second_id = "e1" if first == "e0" else "e0"
        yield Pair(engines[first], engines[second_id], second_id)


@pytest.mark.parametrize("trouble", ["status", "drops", "instead"])
async def test_what_one_engine_fails_at_another_does(
    gateway: Gateway, pair: Pair, trouble: str
) -> None:
    for stream in (False, True):
        setattr(pair.first, trouble, {"status": 502, "drops": True, "instead": b"<html>"}[trouble])
        body = gateway.body("hi", stream=stream and trouble != "instead")

        answer = await gateway.post(PATH, body)

        assert answer.status_code == 200
        assert answer.headers["x-ratchet-engine"] == pair.second_id
        assert "hi" in answer.text
        record = gateway.spooled()[-1]
        assert (record.engine, record.arm, record.propensity) == (pair.second_id, "incumbent", 1.0)


async def test_a_dead_engine_is_not_noticed_by_clients(gateway: Gateway, pair: Pair) -> None:
    dead = "e0" if pair.second_id == "e1" else "e1"
    report(gateway, dead, f"http://127.0.0.1:{free_port()}")

    answers = [await answered_by(gateway) for _ in range(10)]

    assert set(answers[-5:]) == {pair.second_id}


async def test_an_engine_that_lost_its_adapter_leaves_the_call_to_one_that_has_it(
    gateway: Gateway, pair: Pair
) -> None:
    other = pair.first if pair.second is gateway.vllm else pair.second
    name = served_name(ALIAS, "a" * 64)
    other.adapters[name] = "somewhere"
    report(gateway, "e1", other.url, name)
    gateway.promote("a" * 4)
    while (await gateway.post(PATH, gateway.body())).json().get("model") != name:
        pass
    gateway.vllm.adapters.clear()

    engines = {await answered_by(gateway) for _ in range(4)}

    assert engines == {"e1"}


async def test_the_clients_own_mistake_is_not_tried_twice(gateway: Gateway, pair: Pair) -> None:
    pair.first.status = 422
    asked = len(pair.second.asked)

    answer = await gateway.post(PATH, gateway.body())

    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "not today")
    assert len(pair.second.asked) == asked


async def test_what_the_client_has_begun_to_read_is_not_begun_anew(
    gateway: Gateway, pair: Pair
) -> None:
    pair.first.cut_after, pair.first.chunk_delay_s = 2, 0.01
    asked = len(pair.second.asked)

    answer = await gateway.post(PATH, gateway.body("one two three", stream=True))

    assert '"code":"engine_unavailable"' in answer.text
    assert len(pair.second.asked) == asked
    record = gateway.spooled()[-1]
    assert (record.error_type, record.output_tokens) == ("engine_unavailable", pair.first.told[-1])


async def test_when_everything_fails_retries_end(gateway: Gateway, pair: Pair) -> None:
    pair.first.status = pair.second.status = 500
    asked = len(pair.first.asked) + len(pair.second.asked)

    answers = [await gateway.post(PATH, gateway.body()) for _ in range(200)]

    assert {answer.status_code for answer in answers} == {503}
    # Each of 200 once, a fifth of them again, and what was saved up.
    assert len(pair.first.asked) + len(pair.second.asked) - asked < 400


@pytest.mark.parametrize("settings", [FALLBACK])
async def test_the_fallback_answers_when_nobody_else_can(gateway: Gateway) -> None:
    async with FakeVllm("other") as spare:
        gateway.registry.declare(SPARE, "other", "other", datetime.now(UTC))
        report(gateway, "e1", spare.url, base="other")
        while SPARE not in (await _models(gateway)):
            pass
        gateway.vllm.status = 500

        answer = await gateway.post(PATH, gateway.body())

    assert answer.json()["model"] == "other"
    assert answer.headers["x-ratchet-alias"] == SPARE
    record = gateway.spooled()[-1]
    assert (record.arm, record.propensity, record.engine) == ("fallback", None, "e1")
    assert (record.task, record.status) == (ALIAS, 200)


async def _models(gateway: Gateway) -> list[str]:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
        return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def test_a_mistake_that_the_engine_sees_late_is_a_400_all_the_same(
    gateway: Gateway, pair: Pair
) -> None:
    pair.first.refuses = 400

    answer = await gateway.post(PATH, gateway.body("hi", stream=True))

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "no such token"
    record = gateway.spooled()[-1]
    assert (record.status, record.error_type, record.sse) == (400, "invalid_request", None)


async def test_an_engine_that_fails_in_its_first_event_leaves_the_call_to_another(
    gateway: Gateway, pair: Pair
) -> None:
    pair.first.refuses = 500

    answer = await gateway.post(PATH, gateway.body("hi", stream=True))

    assert answer.status_code == 200
    assert answer.headers["x-ratchet-engine"] == pair.second_id
    assert answer.text.endswith("data: [DONE]\n\n")
