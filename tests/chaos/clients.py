"""Clients of a gateway that is killed under them: only a whole answer counts."""

import asyncio
import json
import random
from uuid import UUID, uuid4

import aiohttp

from tests.chaos.front import Front, asks

PAUSE_S = 0.02


class Clients:
    """Requests in closed loops: whole answers, streams, and feedback on them."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.marks: dict[str, str] = {}
        """What was acknowledged: the marks by id."""
        self.broken = 0
        """Answers that did not come, or not to their end."""

    async def run(self, rng: random.Random) -> None:
        """Ask for ever."""
        async with aiohttp.ClientSession(headers=self._front.headers) as session:
            while True:
                try:
                    await self._ask(session, rng)
                except (aiohttp.ClientError, ConnectionError, TimeoutError):
                    self.broken += 1
                await asyncio.sleep(rng.expovariate(1 / PAUSE_S))

    async def _ask(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        mark, stream = uuid4().hex, rng.random() < 0.5
        url = f"{self._front.url}/v1/chat/completions"
        async with session.post(url, json=asks(mark, stream=stream)) as response:
            text = await response.text()
        if response.status != 200 or (stream and "data: [DONE]" not in text):
            self.broken += 1
            return
        answer = json.loads(text) if not stream else json.loads(text.split("\n")[0][6:])
        self.marks[response.headers["x-request-id"]] = mark
        if rng.random() < 0.3:
            await self._comment(session, answer["id"])

    async def _comment(self, session: aiohttp.ClientSession, answer_id: str) -> None:
        mark = uuid4().hex
        body = {"metric_name": "comment", "inference_id": answer_id, "value": mark}
        async with session.post(f"{self._front.url}/v1/feedback", json=body) as response:
            told = await response.json()
        if response.status == 200:
            self.marks[str(UUID(told["feedback_id"]))] = mark
        else:
            self.broken += 1
