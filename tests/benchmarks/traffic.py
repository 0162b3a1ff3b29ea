"""Made-up traffic of a realistic shape: calls of 2.7 KB, and what people said of them.

A few tasks share a system prompt each, as in practice; what users ask and models answer is
text of Zipf-distributed words, of which no sentence comes twice: zstd makes 3.2 bits of a
character, where English prose (enwik8) takes 2.8. The same seed makes the same traffic.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import numpy as np

from gateway.log.record import Feedback, Invocation

START = datetime(2026, 9, 1, tzinfo=UTC)
BETWEEN = timedelta(milliseconds=50)
TASKS = [f"task-{number:02}" for number in range(20)]
ADAPTERS = 7
DEMONSTRATED = 0.005
RATED = 0.2

_BLOCK = 1000
_SYSTEM, _ASKED, _ANSWERED = 130, 82, 60


class Traffic:
    """An endless stream of calls; each block of a thousand is drawn at once, which is fast."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self._words = np.array(_vocabulary(self._random), dtype=object)
        weights = 1 / np.arange(2, len(self._words) + 2)
        self._cumulative_W = np.cumsum(weights / weights.sum())
        prompts = self._texts(len(TASKS), _SYSTEM)
        self._prompts = dict(zip(TASKS, prompts, strict=True))
        self._number = 0

    def calls(self, n: int, *, streamed: bool = False) -> Iterator[Invocation]:
        """The next ``n`` invocations, fifty milliseconds apart."""
        for first in range(0, n, _BLOCK):
            size = min(_BLOCK, n - first)
            asked = self._texts(size, _ASKED)
            answered = self._texts(size, _ANSWERED)
            for question, answer in zip(asked, answered, strict=True):
                yield self._call(question, answer, streamed=streamed)

    def feedback(self, call: Invocation) -> Iterator[Feedback]:
        """What was said of the call: mostly nothing, sometimes a rating or a right answer."""
        draw = self._random.random()
        if draw < DEMONSTRATED:
            right = {"role": "assistant", "content": self._texts(1, _ANSWERED)[0]}
            yield self._said(call, "demonstration", value=right)
        elif draw < RATED:
            yield self._said(call, "helpful", score=float(self._random.random() < 0.8))

    def _call(self, question: str, answer: str, *, streamed: bool) -> Invocation:
        pick = self._random
        ts = START + self._number * BETWEEN
        self._number += 1
        task = TASKS[int(len(TASKS) * pick.random() ** 2)]
        adapter = f"helpdesk--{pick.randrange(ADAPTERS):012x}"
        tags = {"task": task, "region": pick.choice(("eu", "us", "ap")), "release": "2026.9"}
        messages = [
            {"role": "system", "content": self._prompts[task]},
            {"role": "user", "content": question},
        ]
        request = {
            "model": "helpdesk",
            "messages": messages,
            "temperature": 0.2,
            "max_tokens": 512,
            "stream": streamed,
            "metadata": tags,
        }
        failed = pick.random() < 0.01
        name = f"chatcmpl-{pick.getrandbits(128):032x}"
        body = _answer(name, adapter, int(ts.timestamp()), answer)
        sse = _stream(name, adapter, int(ts.timestamp()), answer) if streamed else None
        return Invocation(
            id=_id(ts, pick),
            ts=ts,
            tenant="default",
            task=task,
            episode_id=_id(ts, pick),
            request_model="helpdesk",
            trace_id=f"{pick.getrandbits(128):032x}",
            engine="e0",
            adapter=adapter,
            arm="incumbent",
            propensity=1.0,
            stream=streamed,
            status=503 if failed else 200,
            error_type="engine_error" if failed else None,
            time_to_first_chunk=pick.lognormvariate(-2, 0.5) if streamed else None,
            duration=pick.lognormvariate(0, 0.5),
            subject_id=f"{pick.randrange(50_000):032x}",
            tags=tags,
            request=msgspec.Raw(msgspec.json.encode(request)),
            response=msgspec.Raw(b"null" if streamed else body),
            sse=sse,
        )

    def _said(
        self, call: Invocation, name: str, *, score: float | None = None, value: object = None
    ) -> Feedback:
        return Feedback(
            id=_id(call.ts, self._random),
            ts=call.ts,
            tenant=call.tenant,
            target="invocation",
            target_id=call.id,
            name=name,
            score_value=score,
            value=value,
        )

    def _texts(self, n: int, words: int) -> list[str]:
        drawn = np.searchsorted(self._cumulative_W, self._numpy.random((n, words)))
        return [" ".join(row) for row in self._words[drawn]]


def _vocabulary(pick: random.Random) -> list[str]:
    """Twenty thousand words; common ones are short."""
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "an", "er")]
    sizes = [1 + (rank > 40) + (rank > 600) + (rank > 6000) for rank in range(20_000)]
    return ["".join(pick.choices(syllables, k=size)) for size in sizes]


def _id(ts: datetime, pick: random.Random) -> UUID:
    milliseconds = int(ts.timestamp() * 1000)
    low = 0b10 << 62 | pick.getrandbits(62)
    return UUID(int=milliseconds << 80 | 0x7000 << 64 | pick.getrandbits(12) << 64 | low)


def _answer(name: str, model: str, created: int, text: str) -> bytes:
    words = text.count(" ") + 1
    return msgspec.json.encode(
        {
            "id": name,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "tool_calls": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                }
            ],
            "usage": {
                "prompt_tokens": 300 + words,
                "completion_tokens": words,
                "total_tokens": 300 + 2 * words,
            },
        }
    )


def _stream(name: str, model: str, created: int, text: str) -> str:
    """The same answer as vLLM streams it: an event a token."""
    head = {"id": name, "object": "chat.completion.chunk", "created": created, "model": model}
    events = [
        {**head, "choices": [{"index": 0, "delta": {"content": word + " "}, "logprobs": None}]}
        for word in text.split()
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    used = {"prompt_tokens": 300, "completion_tokens": len(events), "total_tokens": 400}
    events.append({**head, "choices": [], "usage": used})
    lines = [f"data: {msgspec.json.encode(event).decode()}\n\n" for event in events]
    return "".join(lines) + "data: [DONE]\n\n"
