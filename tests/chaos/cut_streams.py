"""Streams whose clients leave at a random point: each is recorded once, with what it received."""

import asyncio
import json
import logging
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from gateway.log.ingest import Ingester
from gateway.log.store import Store
from tests.chaos.front import Front, asks
from tests.fakes.vllm import FakeVllm, Message

AT_ONCE = 16
CHUNK_DELAY_S = 0.002
LONGEST_WORDS = 60
STREAM_WITHIN_S = 60.0
RECORDED_WITHIN_S = 30.0
LOGGED = """
SELECT split_part(request->>'$.messages[0].content', ' ', 1) AS mark, error_type,
  coalesce(response->>'$.choices[0].message.content', '') AS text
FROM invocations
"""
_EVENT = re.compile(rb"data: (\{.*\})\n\n")


@dataclass(frozen=True, slots=True)
class Cut:
    """One stream, up to where its client left."""

    mark: str
    words: int
    text: str
    """What the client had received."""
    whole: bool
    """It left after the last byte."""

    def told_by(self, row: dict[str, Any]) -> bool:
        """Whether ``row`` says what happened; the gateway may have got further than the client."""
        full = answer(self.mark, self.words)
        if row["error_type"] is None:
            return bool(row["text"] == full)
        return (
            not self.whole
            and row["error_type"] == "client_disconnect"
            and row["text"].startswith(self.text)
            and full.startswith(row["text"])
        )


@dataclass(frozen=True, slots=True)
class CutStreams:
    """What became of the streams."""

    tried: int
    recorded: int
    """Exactly once, and rightly."""
    cut: int
    """Not whole when the client left."""
    wrong: tuple[str, ...]
    """What the log says of the others."""


def answer(mark: str, words: int) -> str:
    """What the engine says; every word is a chunk."""
    return "".join(f"{mark}-{number} " for number in range(words))


class _Engine:
    """Answers with as many words as it is asked for, and tells when it has been asked."""

    def __init__(self) -> None:
        self.asked: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def answer(self, body: dict[str, Any]) -> Message:
        mark = body["messages"][-1]["content"].split(" ")[0]
        self.asked[mark].set()
        return {"role": "assistant", "content": answer(mark, body["max_tokens"])}


async def cut_streams(folder: Path, *, number: int, seed: int, port: int) -> CutStreams:
    """Cut ``number`` streams of a real gateway, then read what its log says of them."""
    rng, engine = random.Random(seed), _Engine()
    # It tells of every client that leaves it, and they all do.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    async with FakeVllm("base", answer=engine.answer, chunk_delay_s=CHUNK_DELAY_S) as vllm:
        front = Front(folder, port=port, engine_url=vllm.url)
        with front.gateway():
            async with aiohttp.ClientSession() as session:
                await front.until_up(session)
            reports = asyncio.create_task(front.keep_reporting())
            turn = asyncio.Semaphore(AT_ONCE)
            cuts = await asyncio.gather(*(_cut(front, engine, rng, turn) for _ in range(number)))
            # Asked while the gateway runs: its farewell would record what it had forgotten.
            rows = await asyncio.to_thread(_logged, folder, number)
            reports.cancel()
        front.close()
    return _judged(cuts, rows)


async def _cut(front: Front, engine: _Engine, rng: random.Random, turn: asyncio.Semaphore) -> Cut:
    """One stream; its client leaves before the first byte, at some byte, or after the last."""
    async with turn:
        mark, words = uuid4().hex, rng.randint(1, LONGEST_WORDS)
        leave_after = rng.choice((0, 1, rng.randint(1, 1000 + 600 * words)))
        body = json.dumps(asks(mark, stream=True, max_tokens=words)).encode()
        place = urlsplit(front.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: chaos\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: Bearer {front.key}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(STREAM_WITHIN_S):
            await engine.asked[mark].wait()
            received = await _read(reader, leave_after)
        if rng.random() < 0.5:
            writer.transport.abort()
        writer.close()
    return Cut(mark, words, _text(received), whole=b"data: [DONE]" in received)


async def _read(reader: asyncio.StreamReader, most: int) -> bytes:
    """Up to ``most`` bytes of the answer, or all of it."""
    received = b""
    while len(received) < most and b"data: [DONE]" not in received:
        piece = await reader.read(most - len(received))
        if not piece:
            raise RuntimeError(f"the gateway broke a stream off: {received[-500:]!r}")
        received += piece
    return received


def _text(received: bytes) -> str:
    """The words of every whole event; the gateway sends an event in one piece."""
    deltas = (json.loads(event)["choices"][0]["delta"] for event in _EVENT.findall(received))
    return "".join(delta.get("content") or "" for delta in deltas)


def _logged(folder: Path, number: int) -> list[dict[str, Any]]:
    """The log's rows, once there are as many as streams or it is too late."""
    deadline = time.monotonic() + RECORDED_WITHIN_S
    with Store(folder / "log.duckdb") as store:
        ingester = Ingester(store, folder / "spool", now=partial(datetime.now, UTC))
        while True:
            ingester.run_once()
            rows = store.rows(LOGGED)
            if len(rows) >= number or time.monotonic() > deadline:
                return rows
            time.sleep(0.1)


def _judged(cuts: list[Cut], rows: list[dict[str, Any]]) -> CutStreams:
    by_mark = defaultdict(list)
    for row in rows:
        by_mark[row["mark"]].append(row)
    told = [len(by_mark[cut.mark]) == 1 and cut.told_by(by_mark[cut.mark][0]) for cut in cuts]
    return CutStreams(
        tried=len(cuts),
        recorded=sum(told),
        cut=sum(not cut.whole for cut in cuts),
        wrong=tuple(
            f"{cut}: {by_mark[cut.mark]}"
            for cut, right in zip(cuts, told, strict=True)
            if not right
        ),
    )
