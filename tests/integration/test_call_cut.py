import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Gateway

PATH = "/v1/chat/completions"


async def records(gateway: Gateway, n: int) -> list[Any]:
    """The spool's records, once there are so many."""
    async with asyncio.timeout(10):
        while len(gateway.spooled()) < n:
            await asyncio.sleep(0.01)
    return gateway.spooled()


@pytest.mark.parametrize("lines", [1, 7])
async def test_a_cut_stream_is_metered_to_the_token(gateway: Gateway, lines: int) -> None:
    gateway.vllm.chunk_delay_s = 0.01
    body = gateway.body("many words " * 200, stream=True)
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client,
        client.stream("POST", PATH, json=body) as response,
    ):
        reading = response.aiter_lines()
        for _ in range(lines):
            await anext(reading)

    (record,) = await records(gateway, 1)

    assert (record.status, record.error_type) == (200, "client_disconnect")
    assert (record.input_tokens, record.output_tokens) == (5, gateway.vllm.told[0])
    assert gateway.vllm.finished == 0


async def test_a_whole_answer_that_nobody_waits_for_is_broken_off(gateway: Gateway) -> None:
    gateway.vllm.hold = asyncio.Event()
    asking = asyncio.create_task(gateway.post(PATH, gateway.body()))
    while not gateway.vllm.asked:
        await asyncio.sleep(0)
    asking.cancel()

    (record,) = await records(gateway, 1)
    gateway.vllm.hold.set()

    assert (record.status, record.error_type) == (499, "client_disconnect")
    assert (record.input_tokens, record.output_tokens, record.cost) == (None, None, None)
    assert gateway.vllm.finished == 0


async def test_a_cut_call_gives_its_place_back(gateway: Gateway) -> None:
    gateway.vllm.hold = asyncio.Event()
    for n in range(3):
        asking = asyncio.create_task(gateway.post(PATH, gateway.body()))
        while len(gateway.vllm.asked) <= n:
            await asyncio.sleep(0)
        asking.cancel()
    await records(gateway, 3)

    async with httpx.AsyncClient(base_url=gateway.url) as client:
        metrics = (await client.get("/metrics")).text

    assert 'ratchet_in_flight{worker="w0"} 0' in metrics
