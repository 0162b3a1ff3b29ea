"""The training job as a process: how it fails, ends and dies. Imports torch, trains nothing."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from learner.errors import TrainingError
from learner.launch import Event, JobDirectory, SftJob
from learner.launch.directory import write_whole
from learner.launch.local import run
from learner.training.watch import exclusive

LEARNER = """
import asyncio, sys
from pathlib import Path
from learner.launch import SftJob
from learner.launch.local import run

job = SftJob(base=Path("nowhere"), dataset=Path("nothing.parquet"))
asyncio.run(run(job, Path(sys.argv[1]), on_event=print))
"""


def job() -> SftJob:
    return SftJob(base=Path("nowhere"), dataset=Path("nothing.parquet"))


def unheard(_: Event) -> None: ...


async def until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_job_that_cannot_run_fails_with_one_clear_line(tmp_path: Path) -> None:
    events: list[Event] = []

    with pytest.raises(TrainingError, match="nowhere"):
        await run(job(), tmp_path, on_event=events.append)

    failed = JobDirectory(tmp_path).failed.read_text()
    assert failed.count("\n") == 1
    assert events[-1].level == "error"
    assert events[-1].message == failed.strip()


async def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    write_whole(JobDirectory(tmp_path).done, "{}")

    adapter = await run(job(), tmp_path, on_event=unheard)

    assert adapter == tmp_path / "adapter"
    assert not JobDirectory(tmp_path).log.exists()


async def test_a_directory_belongs_to_one_job(tmp_path: Path) -> None:
    write_whole(JobDirectory(tmp_path).job, job().model_copy(update={"seed": 1}).model_dump_json())

    with pytest.raises(TrainingError, match="another job"):
        await run(job(), tmp_path, on_event=unheard)


async def test_a_cancelled_job_leaves_no_process(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    running = asyncio.create_task(run(job(), tmp_path, on_event=unheard))
    await until(directory.lock.exists)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    with exclusive(directory.lock):
        assert not directory.done.exists()


async def test_a_job_dies_with_its_learner(tmp_path: Path) -> None:
    directory = JobDirectory(tmp_path)
    learner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEARNER, str(tmp_path), env={**os.environ, "PYTHONPATH": "."}
    )
    await until(directory.lock.exists)

    learner.send_signal(signal.SIGKILL)
    await learner.wait()

    with exclusive(directory.lock):  # waits until the trainer has let go
        assert not directory.failed.exists()
