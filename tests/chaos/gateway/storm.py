"""Clients, kills and revocations over a house, until so many requests were made."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from serving.registry import EngineState
from tests.chaos.gateway.clients import Clients, Seen
from tests.chaos.gateway.world import BUDGETS, KINDS, TENANTS, Holder, World
from tests.chaos.storm import say
from tests.chaos.victims import Victim

AT_ONCE = 64
REPORT_S = 2.0
UP_WITHIN_S = 60.0
CHURN_S = 0.5
BUSY = {"free": 3, "wide": 4}
"""Keys that are used more than others: they have room."""
KEPT_REVOKED = 20
"""How many revoked keys still knock."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it gets."""

    requests: int
    engine_kills_s: float
    """Between two kills of engines, on average."""
    worker_kills_s: float | None = None
    """Between two kills of workers; None: they live."""


@dataclass(slots=True)
class Storm:
    """One spell of weather over ``world``."""

    world: World
    weather: Weather
    rng: random.Random
    kills: dict[str, int] = field(default_factory=dict)
    revocations: int = 0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes that each worker had when it was warm, and in the end."""
    seconds: float = 0.0
    _holders: list[Holder] = field(default_factory=list)
    _fleeting: list[Holder] = field(default_factory=list)
    _ended: list[Holder] = field(default_factory=list)
    _revoked: dict[str, float] = field(default_factory=dict)

    async def run(self) -> Seen:
        """The storm, until its last client has its last answer and every engine is back."""
        self._make_keys()
        clients = Clients(self.world.port, self._holder, self._revoked)
        seen, started, warm = clients.seen, time.monotonic(), dict[str, int]()
        raging = asyncio.Event()
        around = [asyncio.create_task(self._report())]
        around += [asyncio.create_task(each) for each in self._disasters(raging)]

        def more() -> bool:
            if not warm and seen.asked * 4 >= self.weather.requests:
                warm.update(self._sizes())
            return seen.asked < self.weather.requests or not self._has_struck

        rngs = [random.Random(self.rng.random()) for _ in range(AT_ONCE)]
        try:
            async with asyncio.TaskGroup() as group:
                for rng in rngs:
                    group.create_task(clients.run(rng, more))
            raging.set()
            await asyncio.gather(*around[1:])
        finally:
            for task in around:
                task.cancel()
        self.seconds = time.monotonic() - started
        self.memory = {name: (warm.get(name, 0), size) for name, size in self._sizes().items()}
        return seen

    @property
    def _has_struck(self) -> bool:
        """Whether everything that may happen has happened once at least."""
        workers = {worker.name for worker in self.world.workers}
        killed = self.kills.keys()
        return (
            self.revocations > 0
            and not killed <= workers
            and (self.weather.worker_kills_s is None or not killed.isdisjoint(workers))
        )

    def _disasters(self, over: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        weather = self.weather
        found = [
            self._again(over, CHURN_S, self._churn),
            self._again(over, weather.engine_kills_s, self._kill_engines),
        ]
        if weather.worker_kills_s is not None:
            found.append(self._again(over, weather.worker_kills_s, self._kill_worker))
        return found

    async def _again(
        self, over: asyncio.Event, every_s: float, act: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        while not over.is_set():
            try:
                async with asyncio.timeout(self.rng.expovariate(1 / every_s)):
                    await over.wait()
            except TimeoutError:
                await act()

    def _make_keys(self) -> None:
        for tenant in TENANTS:
            for name, (limits, budgets) in KINDS.items():
                holder = self.world.make(name, tenant, limits=limits, budgets=budgets)
                self._holders += [holder] * BUSY.get(name, 1)
            self._fleeting.append(self.world.make("fleeting", tenant, budgets=BUDGETS))

    def _holder(self, rng: random.Random) -> Holder:
        """Whose key a request bears; at times one that was revoked."""
        if self._ended and rng.random() < 0.01:
            return rng.choice(self._ended[-KEPT_REVOKED:])
        return rng.choice(self._holders + self._fleeting)

    async def _churn(self) -> None:
        """One fleeting key ends and another comes."""
        loop, place = asyncio.get_running_loop(), self.rng.randrange(len(self._fleeting))
        old = self._fleeting[place]
        self._fleeting[place] = await asyncio.to_thread(
            self.world.make, "fleeting", old.key.tenant, budgets=BUDGETS
        )
        await asyncio.to_thread(self.world.revoke, old)
        self._revoked[old.key.id] = loop.time()
        self._ended.append(old)
        self.revocations += 1

    async def _report(self) -> None:
        """As engines' agents do, for ever."""
        while True:
            for name in self.world.engines:
                await asyncio.to_thread(self.world.report, name)
            await asyncio.sleep(REPORT_S)

    async def _kill_engines(self) -> None:
        """One, or both of a base; it takes a while until anybody is told."""
        rng, world = self.rng, self.world
        names = rng.choice((["e0"], ["e1"], ["e2"], ["e0", "e1"]))
        for name in names:
            await self._kill(world.engines[name])
        await asyncio.sleep(rng.uniform(0, 0.6))
        for name in names:
            await asyncio.to_thread(world.report, name, EngineState.DOWN)
        await asyncio.sleep(rng.uniform(0, 0.4))
        for name in names:
            world.engines[name].start()
        for name in names:
            await _listens(world.engine_ports[name])
            await asyncio.sleep(rng.uniform(0, 0.3))
            await asyncio.to_thread(world.report, name, EngineState.READY)

    async def _kill_worker(self) -> None:
        worker = self.rng.choice(self.world.workers)
        await self._kill(worker)
        await asyncio.sleep(self.rng.uniform(0, 0.3))
        worker.start()
        await published(self.world.folder, worker)

    async def _kill(self, victim: Victim) -> None:
        await asyncio.to_thread(victim.kill)
        self.kills[victim.name] = self.kills.get(victim.name, 0) + 1
        if sum(self.kills.values()) % 25 == 0:
            say(f"{sum(self.kills.values())} kills {self.kills}")

    def _sizes(self) -> dict[str, int]:
        return {
            worker.name: psutil.Process(worker.pid).memory_info().rss
            for worker in self.world.workers
        }


async def published(folder: Path, worker: Victim) -> None:
    """Wait until a worker that was just started serves. Raises TimeoutError, RuntimeError."""
    page = folder / "run" / f"metrics-{worker.name}.msgpack"
    born = psutil.Process(worker.pid).create_time()
    async with asyncio.timeout(UP_WITHIN_S):
        while not page.exists() or page.stat().st_mtime < born:
            if worker.code is not None:
                raise RuntimeError(f"{worker.name} died by itself; see {folder}")
            await asyncio.sleep(0.05)


async def _listens(port: int) -> None:
    async with asyncio.timeout(UP_WITHIN_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
