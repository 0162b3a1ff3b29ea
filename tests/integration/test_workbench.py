"""The workbench with a process in vLLM's place: it never outlives its job."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from serving.errors import LaunchError
from serving.launch import EngineSpec
from serving.workbench import Workbench
from tests.fakes.adapters import BASE
from tests.fakes.vllm_process import stand_in


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    (tmp_path / "config.json").write_text(json.dumps(BASE))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return EngineSpec(
        name="workbench",
        base=str(tmp_path),
        served_name="tiny",
        port=free_port(),
        python=stand_in(tmp_path, sys.executable),
    )


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(run_dir: Path) -> list[psutil.Process]:
    leader = psutil.Process(json.loads((run_dir / "workbench.pid").read_text())["pid"])
    return [leader, *leader.children(recursive=True)]


async def test_a_workbench_answers_inside_the_block_and_is_gone_after_it(
    spec: EngineSpec, tmp_path: Path
) -> None:
    async with Workbench(spec, tmp_path / "run") as engine:
        assert await engine.healthy()
        processes = family(tmp_path / "run")

    assert len(processes) >= 2
    assert not [process for process in processes if alive(process)]


async def test_a_workbench_is_ended_when_its_job_is_killed(
    spec: EngineSpec, tmp_path: Path
) -> None:
    code = f"""
import asyncio
from pathlib import Path
from serving.launch import EngineSpec
from serving.workbench import Workbench
async def main():
    spec = EngineSpec(name="workbench", base={spec.base!r}, served_name="tiny",
        port={spec.port}, python={spec.python!r})
    async with Workbench(spec, Path({str(tmp_path / "run")!r})):
        print("up", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert job.stdout is not None
    assert await asyncio.to_thread(job.stdout.readline) == b"up\n"
    processes = family(tmp_path / "run")

    job.kill()
    job.wait()
    job.stdout.close()

    await until(lambda: not any(alive(process) for process in processes), 5.0)


async def test_a_workbench_that_cannot_start_says_why_and_leaves_nothing(
    spec: EngineSpec, tmp_path: Path
) -> None:
    broken = "import sys; print('no such flag: --sparkle'); sys.exit(2)"
    (tmp_path / "vllm.py").write_text(broken)
    spec = replace(spec, python=stand_in(tmp_path, sys.executable, tmp_path / "vllm.py"))

    with pytest.raises(LaunchError, match="ended with code 2 while starting") as caught:
        async with Workbench(spec, tmp_path / "run"):
            pass

    assert "--sparkle" in str(caught.value)
    assert not (tmp_path / "run" / "workbench.pid").exists()
