"""The spool's disk fills up under a real gateway, and empties again.

    unshare -m python -m tests.chaos.full_spool FOLDER PORT

What happened is printed as JSON.
"""

import argparse
import asyncio
import random
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from gateway.log.ingest import Ingester
from gateway.log.store import Store
from tests.chaos.front import Front, asks
from tests.chaos.oracle import Verdict
from tests.chaos.small_disk import SmallDisk
from tests.fakes.vllm import FakeVllm

BODY_BYTES = 40_000
LOOSE = "loose"
"""The task whose answers are given without a record."""
LOOSE_ASKED = 5
MOST_ASKED = 400
BACK_WITHIN_S = 20.0


@dataclass(slots=True)
class Report:
    """What the clients and the log saw."""

    refusal: dict[str, Any] = field(default_factory=dict)
    """The first answer of a task whose record is required."""
    refused: int = 0
    refused_in_log: int = 0
    loose_answered: int = 0
    loose_in_log: int = 0
    dropped_by_log: int = 0
    """What the incidents sum up to."""
    recovered: bool = False
    """Answers came again, of the same process."""
    emptied: bool = False
    """The ingester emptied the spool while the disk was still full."""
    verdict: Verdict | None = None


class Scenario:
    """The disk, the gateway on it, and what its clients are told."""

    def __init__(self, folder: Path, front: Front) -> None:
        self.report = Report()
        self._front = front
        self._disk = SmallDisk(folder / "disk", size=3 << 20, taken=1 << 20)
        self._spool = folder / "disk" / "spool"
        self._log = folder / "log.duckdb"
        self._rng = random.Random(1)
        self._marks: dict[str, str] = {}
        self._refused: list[str] = []
        self._loose: list[str] = []

    async def run(self) -> None:
        """Fill, refuse, make room, go on, ingest; then compare."""
        self._disk.mount()
        settings = {"spool": self._spool, "best_effort": f'["{LOOSE}"]'}
        async with aiohttp.ClientSession(headers=self._front.headers) as session:
            with self._front.gateway(**settings) as gateway:
                await self._front.until_up(session)
                while not self._refused and len(self._marks) < MOST_ASKED:
                    await self._ask(session)
                for _ in range(LOOSE_ASKED):
                    await self._ask_loosely(session)
                self._disk.make_room()
                self.report.recovered = await self._comes_back(session) and gateway.code is None
                self._fill()
        with Store(self._log) as store:
            ingester = Ingester(store, self._spool, now=partial(datetime.now, UTC))
            while ingester.run_once():
                pass
            self.report.emptied = not list(self._spool.glob("*.jsonl"))
            self._compare(store)

    async def _post(self, session: aiohttp.ClientSession, mark: str, **more: object) -> Any:
        body = asks(mark, **more)
        body["user"] = self._rng.randbytes(BODY_BYTES // 2).hex()
        return session.post(f"{self._front.url}/v1/chat/completions", json=body)

    async def _ask(self, session: aiohttp.ClientSession) -> bool:
        mark = uuid4().hex
        async with await self._post(session, mark) as response:
            told = await response.json()
        if response.status == 200:
            self._marks[response.headers["x-request-id"]] = mark
        else:
            self._refused.append(mark)
            self.report.refusal = self.report.refusal or {"status": response.status, **told}
        return bool(response.status == 200)

    async def _ask_loosely(self, session: aiohttp.ClientSession) -> None:
        mark = uuid4().hex
        async with await self._post(session, mark, metadata={"task": LOOSE}) as response:
            self.report.loose_answered += response.status == 200
        self._loose.append(mark)

    async def _comes_back(self, session: aiohttp.ClientSession) -> bool:
        deadline = asyncio.get_running_loop().time() + BACK_WITHIN_S
        while asyncio.get_running_loop().time() < deadline:
            if await self._ask(session):
                return True
            await asyncio.sleep(0.1)
        return False

    def _fill(self) -> None:
        """Somebody else takes all that is left: no copy of anything fits any more."""
        with (self._disk.place / "other").open("wb") as other:
            other.write(bytes(max(0, self._disk.free)))

    def _compare(self, store: Store) -> None:
        report = self.report
        report.verdict = Verdict.of(self._marks, store)
        rows = store.rows("SELECT request->>'$.messages[0].content' AS text FROM invocations")
        stored = {row["text"].split(" ")[0] for row in rows}
        report.refused = len(self._refused)
        report.refused_in_log = len(stored.intersection(self._refused))
        report.loose_in_log = len(stored.intersection(self._loose))
        told = store.rows("SELECT coalesce(sum(n), 0) AS n FROM incidents WHERE kind = 'dropped'")
        report.dropped_by_log = int(told[0]["n"])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    told = parser.parse_args()
    async with FakeVllm("base") as vllm:
        front = Front(told.folder / "front", port=told.port, engine_url=vllm.url)
        reports = asyncio.create_task(front.keep_reporting())
        scenario = Scenario(told.folder, front)
        await scenario.run()
        reports.cancel()
        front.close()
    sys.stdout.write(msgspec.json.encode(scenario.report).decode())


if __name__ == "__main__":
    asyncio.run(main())
