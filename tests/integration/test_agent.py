"""The agent with a process in vLLM's place: what is reported, and when."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from serving.agent import Agent
from serving.artifact import publish
from serving.engine import Engine
from serving.errors import LaunchError
from serving.launch import Device, Machine
from serving.registry import AdapterVersion, EngineReport, EngineState, Registry
from serving.settings import AgentSettings, EngineSettings
from tests.fakes.adapters import BASE, lora_weights, write_adapter
from tests.fakes.vllm_process import stand_in

CPU = Machine(Device.CPU, cores=2)


def now() -> datetime:
    return datetime.now(UTC)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Recorder(Registry):
    """A registry that keeps every report in the order in which it arrived."""

    def report(self, report: EngineReport) -> None:
        super().report(report)
        self.reports = [*getattr(self, "reports", []), report]


@dataclass(frozen=True)
class House:
    """A registry, a base on disk and the settings of one agent."""

    folder: Path
    registry: Recorder
    settings: AgentSettings

    def gated(self, seed: int) -> AdapterVersion:
        source = write_adapter(self.folder / f"trained-{seed}", lora_weights(seed))
        artifact = publish(source, self.folder / "store", base_config=BASE, max_rank=16)
        version = self.registry.add("helpdesk", artifact, at=now(), lineage={})
        return self.registry.gate("helpdesk", version.version, verdict_id="v", at=now())

    @property
    def last(self) -> EngineReport:
        return self.registry.reports[-1]

    def is_state(self, state: EngineState) -> bool:
        return bool(getattr(self.registry, "reports", None)) and self.last.state is state

    def pid(self) -> int:
        return int(json.loads((self.folder / "run" / "e0.pid").read_text())["pid"])

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[asyncio.Event]:
        """A running agent; set the event, or leave, to stop it."""
        stop = asyncio.Event()
        task = asyncio.create_task(Agent(self.settings, self.registry, CPU).run(stop))
        try:
            yield stop
        finally:
            stop.set()
            await task


@pytest.fixture
def house(tmp_path: Path) -> House:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(BASE))
    (base / "model.safetensors").write_bytes(b"weights")
    url = f"sqlite:///{tmp_path}/state.db"
    registry = Recorder.open(url)
    registry.declare("helpdesk", str(base), "tiny", now())
    settings = AgentSettings(
        database_url=url,
        run_dir=tmp_path / "run",
        engine=EngineSettings(
            name="e0",
            base=str(base),
            served_name="tiny",
            port=free_port(),
            python=stand_in(tmp_path, sys.executable),
        ),
        poll_s=0.02,
        heartbeat_s=0.3,
        reconcile_s=0.2,
        hang_s=0.5,
        drain_s=0.5,
    )
    return House(tmp_path, registry, settings)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_engine_is_ready_only_with_every_wanted_adapter(house: House) -> None:
    versions = [house.gated(seed) for seed in (1, 2)]

    async with house.agent():
        await until(lambda: house.is_state(EngineState.READY))

    ready = [report for report in house.registry.reports if report.state is EngineState.READY]
    assert ready[0].resident == {version.served_name for version in versions}
    assert house.registry.reports[0].state is EngineState.STARTING
    assert house.last.state is EngineState.DOWN
    assert house.last.resident == frozenset()


async def test_a_gated_adapter_is_loaded_at_once_and_a_drained_one_unloaded(house: House) -> None:
    async with house.agent():
        await until(lambda: house.is_state(EngineState.READY))
        version = house.gated(1)
        await until(lambda: house.last.resident == {version.served_name}, 1.0)

        house.registry.reject("helpdesk", version.version, reason="no", at=now())

        await until(lambda: house.last.resident == frozenset())


async def test_a_killed_engine_is_reported_at_once_and_returns_with_its_adapters(
    house: House,
) -> None:
    version = house.gated(1)
    async with house.agent():
        await until(lambda: house.is_state(EngineState.READY))
        os.kill(house.pid(), signal.SIGKILL)

        await until(lambda: house.is_state(EngineState.DOWN), 1.0)
        down = len(house.registry.reports)
        await until(lambda: house.is_state(EngineState.READY))

    later = house.registry.reports[down:]
    assert all(
        version.served_name in report.resident
        for report in later
        if report.state is EngineState.READY
    )
    assert EngineState.STARTING in {report.state for report in later}


async def test_an_engine_whose_core_died_is_not_ready_although_it_answers(house: House) -> None:
    async with house.agent(), aiohttp.ClientSession() as session:
        await until(lambda: house.is_state(EngineState.READY))

        await session.post(house.settings.engine.spec().url + "/break")

        await until(lambda: house.is_state(EngineState.STARTING), 2.0)


async def test_a_deaf_engine_is_killed_and_started_again(house: House) -> None:
    async with house.agent():
        await until(lambda: house.is_state(EngineState.READY))
        first = house.pid()

        os.kill(first, signal.SIGSTOP)

        await until(lambda: house.is_state(EngineState.DOWN))
        await until(lambda: house.is_state(EngineState.READY))
        assert house.pid() != first


async def test_running_answers_finish_before_the_engine_is_stopped(house: House) -> None:
    async with house.agent() as stop, Engine(house.settings.engine.spec().url) as engine:
        await until(lambda: house.is_state(EngineState.READY))
        body = {"model": "tiny", "prompt": [1, 2], "seconds": 1.5}
        answer = asyncio.create_task(engine.completions(body))
        await asyncio.sleep(0.1)

        stop.set()

        await until(lambda: house.is_state(EngineState.DRAINING), 1.0)
        assert (await answer)["choices"][0]["text"] == "tiny"


async def test_heartbeats_go_on_while_nothing_changes(house: House) -> None:
    async with house.agent():
        await until(lambda: house.is_state(EngineState.READY))
        count, version = len(house.registry.reports), house.registry.data_version()

        await until(lambda: len(house.registry.reports) >= count + 3)

        assert house.registry.data_version() == version


async def test_a_port_in_use_is_said_and_nothing_is_started(house: House) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", house.settings.engine.port))
        taken.listen()

        with pytest.raises(LaunchError, match="cannot be used"):
            async with house.agent():
                await until(lambda: house.is_state(EngineState.DOWN))

    assert house.last.state is EngineState.DOWN
    assert not (house.folder / "run" / "e0.pid").exists()
