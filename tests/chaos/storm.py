"""kill -9, again and again, of everything that writes to the log or owns it."""

import asyncio
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from gateway.log.cipher import KEY, Keyring
from gateway.log.spool import Durability
from gateway.log.store import Store
from tests.chaos.acks import acknowledged
from tests.chaos.clients import Clients
from tests.chaos.front import Front
from tests.chaos.oracle import Verdict
from tests.chaos.victims import Victim

WRITERS = 2
CLIENTS = 4
DRAIN_S = 600.0
AIM_S = 1.5
"""How long a kill of the owner waits for a checkpoint to strike."""
SECRET = "ab" * 32


@dataclass(frozen=True, slots=True)
class Campaign:
    """One log under one kind of promise."""

    durability: Durability
    encrypted: bool
    kills: int
    seed: int
    port: int
    """Of the gateway."""
    engine_port: int
    pause_s: float = 0.5
    """Between two kills, on average."""

    @property
    def name(self) -> str:
        return f"{self.durability}{'-encrypted' if self.encrypted else ''}"

    @property
    def environment(self) -> dict[str, str]:
        return {KEY: SECRET} if self.encrypted else {}

    @property
    def keys(self) -> Keyring | None:
        return Keyring.from_environment(self.environment)


@dataclass(slots=True)
class Storm:
    """The processes of one campaign in ``folder``, and who was killed how often."""

    campaign: Campaign
    folder: Path
    killed: dict[str, int] = field(default_factory=dict)
    in_checkpoint: int = 0
    """Kills that left a checkpoint unfinished: its WAL was still there."""

    @property
    def log(self) -> Path:
        return self.folder / "log.duckdb"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    async def run(self) -> Verdict:
        """Kill, drain, compare. Raises RuntimeError when a process died that nobody killed."""
        rng = random.Random(self.campaign.seed)
        engine = self._victim("engine", "tests.chaos.engine", str(self.campaign.engine_port))
        front = Front(
            self.folder,
            port=self.campaign.port,
            engine_url=f"http://127.0.0.1:{self.campaign.engine_port}",
        )
        clients = Clients(front)
        with self._owner() as owner, engine:
            with self._writing(front) as writers:
                async with aiohttp.ClientSession() as session:
                    await front.until_up(session)
                tasks = [asyncio.create_task(front.keep_reporting())]
                tasks += [
                    asyncio.create_task(clients.run(random.Random(self.campaign.seed + number)))
                    for number in range(CLIENTS)
                ]
                await self._kill_all([owner, *writers], rng)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._drained(owner)
        front.close()
        marks = acknowledged(self.folder / "acks") | clients.marks
        with Store(self.log, keys=self.campaign.keys) as store:
            return Verdict.of(marks, store)

    @contextmanager
    def _writing(self, front: Front) -> Iterator[list[Victim]]:
        """Everything that appends to the spool."""
        with ExitStack() as stack:
            gateway = front.gateway(durability=self.campaign.durability.value, spool=self.spool)
            gateway.environment.update(self.campaign.environment)
            yield [
                stack.enter_context(victim)
                for victim in (gateway, *(self._writer(number) for number in range(WRITERS)))
            ]

    def _writer(self, number: int) -> Victim:
        name = f"writer{number}"
        told = {
            "--spool": self.spool,
            "--worker": name,
            "--acks": self.folder / "acks" / name,
            "--durability": self.campaign.durability,
            "--seed": self.campaign.seed + number,
        }
        flags = (str(part) for flag in told.items() for part in flag)
        return self._victim(name, "tests.chaos.writers", *flags)

    def _owner(self) -> Victim:
        arguments = ("--log", str(self.log), "--spool", str(self.spool))
        return self._victim("owner", "tests.chaos.owner", *arguments)

    def _victim(self, name: str, *command: str) -> Victim:
        self.folder.mkdir(parents=True, exist_ok=True)
        output = self.folder / f"{name}.log"
        return Victim(name, *command, output=output, env=self.campaign.environment)

    async def _kill_all(self, victims: list[Victim], rng: random.Random) -> None:
        for number in range(self.campaign.kills):
            await asyncio.sleep(rng.expovariate(1 / self.campaign.pause_s))
            # Half of the kills hit the owner: it is the side with the most to lose.
            victim = victims[0] if rng.random() < 0.5 else rng.choice(victims[1:])
            aimed = victim is victims[0] and await self._checkpoint_begins(rng)
            victim.kill()
            wal = self.log.with_name(self.log.name + ".wal")
            self.in_checkpoint += aimed and wal.exists() and wal.stat().st_size > 0
            self.killed[victim.name] = victim.kills
            victim.start()
            if number % 25 == 24:
                say(f"{self.campaign.name}: {number + 1} kills {self.killed}")

    async def _checkpoint_begins(self, rng: random.Random) -> bool:
        """Whether the owner writes its file, not only the WAL; at times nobody waits for that."""
        if rng.random() < 0.5 or not self.log.exists():
            return False
        before = self.log.stat().st_mtime_ns
        deadline = asyncio.get_running_loop().time() + AIM_S
        while asyncio.get_running_loop().time() < deadline:
            if self.log.stat().st_mtime_ns != before:
                await asyncio.sleep(rng.uniform(0, 0.02))
                return True
            await asyncio.sleep(0.0005)
        return False

    async def _drained(self, owner: Victim) -> None:
        """Until the owner has taken everything in and retired every segment."""
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        while left := sorted(self.spool.glob("*.jsonl")):
            if owner.code is not None:
                raise RuntimeError(f"the owner died by itself; see {self.folder}")
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"not drained after {DRAIN_S:.0f} s: {left}")
            await asyncio.sleep(0.2)


def say(text: str) -> None:
    """Progress, for whoever watches."""
    at = datetime.now(UTC)
    print(f"{at:%H:%M:%S} {text}", file=sys.stderr, flush=True)  # noqa: T201
