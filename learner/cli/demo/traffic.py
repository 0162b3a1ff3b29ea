"""The demo's clients: the official ``openai`` library, against the gateway."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAIError

from learner.dataset.sample import Sample

MAX_TOKENS = 256
WATCH_S = 0.01
"""How exactly the moment of the swap is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought back. Times are seconds of ``time.time``."""

    id: str
    started: float
    models: frozenset[str]
    """Every model name that the answer, or any piece of its stream, carried."""
    error: str | None = None

    @property
    def mixed(self) -> bool:
        """Whether more than one model had a part in it."""
        return len(self.models) > 1


@dataclass(slots=True)
class Ledger:
    """The clients' own account, to hold against the log's."""

    answers: list[Answer] = field(default_factory=list)

    def by_model(self) -> dict[str, int]:
        """Answers of each model that gave any."""
        return dict(
            Counter(next(iter(a.models)) for a in self.answers if not a.error and not a.mixed)
        )

    def between(self, start: float, end: float) -> list[Answer]:
        """Requests that were started in this span."""
        return [answer for answer in self.answers if start <= answer.started <= end]


class Clients:
    """Sends requests, every other one streamed, and keeps the ledger."""

    def __init__(self, url: str, key: str, model: str, tools: Sequence[dict[str, Any]]) -> None:
        self._openai = AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=120.0)
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"})
        self._model = model
        self._tools = list(tools)
        self._turn = itertools.count()
        self.ledger = Ledger()

    async def close(self) -> None:
        await self._openai.close()
        await self._http.aclose()

    async def ask(self, sample: Sample) -> Answer:
        """One request; its failure is an entry in the ledger, not an exception."""
        streamed = next(self._turn) % 2 == 1
        started = time.time()
        try:
            answer_id, models = await (self._stream if streamed else self._whole)(sample)
            answer = Answer(answer_id, started, models)
        except OpenAIError as error:
            answer = Answer("", started, frozenset(), error=str(error) or type(error).__name__)
        self.ledger.answers.append(answer)
        return answer

    async def ask_all(self, samples: Sequence[Sample], *, concurrency: int) -> list[Answer]:
        """Ask each sample, so many at a time; answers in their order."""
        turns = asyncio.Semaphore(concurrency)

        async def one(sample: Sample) -> Answer:
            async with turns:
                return await self.ask(sample)

        return list(await asyncio.gather(*(one(sample) for sample in samples)))

    async def alias_moved(self) -> float:
        """Wait until the gateway resolves the model to another adapter; when that was seen."""
        before = await self._adapter()
        while await self._adapter() == before:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(WATCH_S)
        return time.time()

    async def demonstrate(self, answer: Answer, reference: dict[str, Any]) -> None:
        """Tell the gateway what the right answer would have been."""
        call = {
            "type": "function",
            "function": {
                "name": reference["name"],
                "arguments": json.dumps(reference["arguments"], ensure_ascii=False),
            },
        }
        body = {
            "metric_name": "demonstration",
            "inference_id": answer.id,
            "value": {"role": "assistant", "tool_calls": [call]},
        }
        response = await self._http.post("/feedback", json=body)
        response.raise_for_status()

    async def _adapter(self) -> str | None:
        response = await self._http.get(f"/models/{self._model}")
        response.raise_for_status()
        adapter: str | None = response.json()["adapter"]
        return adapter

    async def _whole(self, sample: Sample) -> tuple[str, frozenset[str]]:
        completion = await self._openai.chat.completions.create(
            **self._request(sample), stream=False
        )
        return completion.id, frozenset({completion.model})

    async def _stream(self, sample: Sample) -> tuple[str, frozenset[str]]:
        models: set[str] = set()
        answer_id = ""
        finished = False
        stream = await self._openai.chat.completions.create(**self._request(sample), stream=True)
        async for chunk in stream:
            answer_id = chunk.id
            models.add(chunk.model)
            finished = finished or any(choice.finish_reason for choice in chunk.choices)
        if not finished:
            raise OpenAIError("the stream ended without a finish_reason")
        return answer_id, frozenset(models)

    def _request(self, sample: Sample) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": list(sample.messages),
            "tools": self._tools,
            "temperature": 0.0,
            "max_tokens": MAX_TOKENS,
        }


class Flow:
    """Traffic in the background, at a pace that can be changed while it runs."""

    def __init__(self, clients: Clients, samples: Sequence[Sample]) -> None:
        self._clients = clients
        self._samples: Iterator[Sample] = itertools.cycle(samples)
        self.workers = 1
        self.pause_s = 1.0
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send no more, and wait for the answers that are due."""
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        """One after the other in each worker: the next request waits for the last answer."""
        running: set[asyncio.Task[None]] = set()
        while not self._stopped.is_set():
            while len(running) < self.workers:
                running.add(asyncio.create_task(self._one()))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        if running:
            await asyncio.wait(running)

    async def _one(self) -> None:
        await self._clients.ask(next(self._samples))
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
