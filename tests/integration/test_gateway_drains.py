"""SIGTERM under load: what runs is answered and recorded, what is new is refused."""

import asyncio
import signal
from contextlib import suppress

import httpx

from tests.integration.conftest import Gateway

PATH = "/v1/chat/completions"
EACH = 20


async def test_a_worker_that_is_told_to_end_answers_what_runs(gateway: Gateway) -> None:
    gateway.vllm.hold = asyncio.Event()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=gateway.headers, limits=limits, timeout=30
    ) as client:
        asking = [
            asyncio.create_task(client.post(PATH, json=gateway.body(stream=stream)))
            for stream in (True, False)
            for _ in range(EACH)
        ]
        while len(gateway.vllm.asked) < len(asking):
            await asyncio.sleep(0.01)
        gateway.process.send_signal(signal.SIGTERM)
        with suppress(httpx.TransportError):
            while True:  # until nobody listens any more
                await gateway.post(PATH, [])
        gateway.vllm.hold.set()
        answers = await asyncio.gather(*asking)

    assert [answer.status_code for answer in answers] == [200] * 2 * EACH
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers[:EACH])
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    assert len({record.id for record in gateway.spooled()}) == len(gateway.spooled()) == 2 * EACH
