"""The agent and a real vLLM: loads, probes, deaths and returns."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from serving.artifact import publish
from serving.engine import Engine
from serving.errors import ArtifactInvalid, LaunchError
from serving.launch import EngineSpec
from serving.registry import AdapterVersion, EngineReport, EngineState, NotResident, Registry
from serving.workbench import Workbench

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SHARED_BASE = ROOT.parent / "shared" / "models" / "snips-base"
START_S = 180.0


def now() -> datetime:
    return datetime.now(UTC)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class World:
    """A base model, adapters as a trainer leaves them, and an agent that serves the base."""

    folder: Path
    base: Path
    registry: Registry
    agent: subprocess.Popen[bytes]

    def report(self) -> EngineReport | None:
        reports = self.registry.engines(now=now())
        return reports[0] if reports else None

    def state(self) -> EngineState | None:
        report = self.report()
        return report.state if report else None

    def gated(self, name: str) -> AdapterVersion:
        """The trainer's adapter ``name``, published, registered and gated."""
        source, store = self.folder / "trained" / name, self.folder / "store"
        artifact = publish(source, store, base_config=self.base, max_rank=16)
        version = self.registry.add("tiny", artifact, at=now(), lineage={})
        return self.registry.gate("tiny", version.version, verdict_id="v", at=now())

    def resident(self, version: AdapterVersion) -> bool:
        report = self.report()
        return report is not None and version.served_name in report.resident

    def failure(self, version: AdapterVersion) -> str | None:
        report = self.report()
        return report.failed.get(version.served_name) if report else None

    def vllm(self) -> int:
        """The process id of vLLM's API server."""
        return int(json.loads((self.folder / "run" / "e2e.pid").read_text())["pid"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("serving")
    base = SHARED_BASE if SHARED_BASE.exists() else folder / "base"
    maker = ROOT / "tests" / "fakes" / "tiny_adapters.py"
    subprocess.run([sys.executable, maker, base, folder / "trained"], check=True)
    registry = Registry.open(f"sqlite:///{folder}/state.db")
    registry.declare("tiny", str(base), "tiny-base", now())
    settings = {
        "database_url": f"sqlite:///{folder}/state.db",
        "run_dir": str(folder / "run"),
        "engine": {
            "name": "e2e",
            "base": str(base),
            "served_name": "tiny-base",
            "port": free_port(),
            "args": {"max-model-len": 512},
        },
    }
    (folder / "agent.json").write_text(json.dumps(settings))
    agent = subprocess.Popen(
        [sys.executable, "-m", "serving", "--config", folder / "agent.json"], cwd=ROOT
    )
    yield World(folder, base, registry, agent)
    if agent.poll() is None:
        agent.terminate()
        agent.wait(60)
    registry.close()


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def answer(engine: Engine, model: str) -> str:
    body = {"model": model, "prompt": [5, 17, 101], "max_tokens": 12, "temperature": 0}
    told = await engine.completions(body | {"ignore_eos": True, "return_token_ids": True})
    return str(told["choices"][0]["token_ids"])


async def test_a_gated_adapter_becomes_resident_and_goes_live(world: World) -> None:
    await until(lambda: world.state() is EngineState.READY, START_S)
    version = world.gated("sound")

    await until(lambda: world.resident(version))
    promotion = world.registry.promote("tiny", version.version, at=now())

    assert promotion.live is not None
    assert promotion.live.version == version.version
    report = world.report()
    assert report is not None
    async with Engine(report.url) as engine:
        assert await answer(engine, version.served_name) != await answer(engine, "tiny-base")
        assert await engine.unfinished() == 0


async def test_an_adapter_without_effect_fails_the_probe(world: World) -> None:
    version = world.gated("idle")

    await until(lambda: world.failure(version) is not None)

    assert "answers as the base does" in str(world.failure(version))
    assert not world.resident(version)
    with pytest.raises(NotResident, match="answers as the base does"):
        world.registry.promote("tiny", version.version, at=now())


async def test_an_adapter_that_is_not_what_was_trained_fails_the_probe(world: World) -> None:
    version = world.gated("foreign")

    await until(lambda: world.failure(version) is not None)

    assert "off the trainer's" in str(world.failure(version))


def test_an_adapter_with_broken_weights_never_comes_near_an_engine(world: World) -> None:
    with pytest.raises(ArtifactInvalid, match="not finite"):
        world.gated("broken")


async def test_a_killed_vllm_comes_back_with_its_adapters_before_it_is_ready(
    world: World,
) -> None:
    live = world.registry.live("tiny")
    assert live is not None
    await until(lambda: world.resident(live), START_S)
    states: list[tuple[EngineState, bool]] = []

    os.kill(world.vllm(), signal.SIGKILL)
    await until(lambda: world.state() is not EngineState.READY, 5.0)

    def back() -> bool:
        report = world.report()
        if report is not None:
            states.append((report.state, live.served_name in report.resident))
        return report is not None and report.state is EngineState.READY

    await until(back, START_S)
    assert states[-1] == (EngineState.READY, True)
    assert (EngineState.READY, False) not in states


async def test_the_agent_stops_cleanly_and_leaves_no_process(world: World) -> None:
    family = psutil.Process(world.agent.pid).children(recursive=True)

    world.agent.terminate()
    code = await asyncio.to_thread(world.agent.wait, 60)

    assert code == 0
    assert world.state() is EngineState.DOWN
    assert not [process for process in family if running(process)]


async def test_a_workbench_holds_candidates_and_is_gone_afterwards(world: World) -> None:
    port = free_port()
    spec = EngineSpec(
        name="workbench",
        base=str(world.base),
        served_name="tiny-base",
        port=port,
        args={"max-model-len": 512},
    )
    artifact = publish(
        world.folder / "trained" / "sound",
        world.folder / "store",
        base_config=world.base,
        max_rank=16,
    )
    waited: list[float] = []

    async with Workbench(spec, world.folder / "run", progress=waited.append) as engine:
        await engine.load("candidate--1", artifact.path)
        assert await engine.resident() == {"candidate--1"}
        assert await answer(engine, "candidate--1") != await answer(engine, "tiny-base")

    assert waited
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", port))


async def test_a_vllm_that_cannot_start_is_explained_by_its_own_log(world: World) -> None:
    spec = EngineSpec(
        name="misled",
        base=str(world.base),
        served_name="tiny-base",
        port=free_port(),
        args={"no-such-flag": 1},
    )

    with pytest.raises(LaunchError, match="no-such-flag"):
        async with Workbench(spec, world.folder / "run"):
            pass
