"""Runs a training job as a subprocess of this machine."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from learner.errors import TrainingError
from learner.launch.directory import JobDirectory, write_whole
from learner.launch.event import Event
from learner.launch.job import Job, read_job

POLL_S = 0.2
"""How often new events are looked for."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""Lets glibc keep freed memory: a training step frees and takes the same hundreds of
megabytes, and giving them back cost 50,000 page faults and a fifth of its time."""

LAST_WORDS = 20
"""Lines of the log that explain a job which died without a word."""


async def run(job: Job, directory: Path, *, on_event: Callable[[Event], None]) -> Path:
    """Train ``job`` in ``directory``; the directory of the trained adapter.

    Safe to repeat: a finished job returns at once, one that was interrupted goes on from its
    last checkpoint. ``on_event`` hears the events of this run only. TrainingError when the job
    fails, when the directory belongs to another job, or when the process dies. Cancelled, it
    kills the job; so does the death of this process, by whatever signal.
    """
    places = _claimed(directory, job)
    if places.done.exists():
        return places.adapter
    places.failed.unlink(missing_ok=True)
    offset = places.events.stat().st_size if places.events.exists() else 0
    process = await _start(places)
    try:
        offset = await _follow(process, places, offset, on_event)
    finally:
        await _kill(process)
    _tell(places, offset, on_event)
    if places.done.exists():
        return places.adapter
    raise TrainingError(f"training in {places.path} failed: {_why(places, process)}")


def _claimed(directory: Path, job: Job) -> JobDirectory:
    """The directory with the job written down, or with the same one found there."""
    places = JobDirectory(directory.absolute())
    places.path.mkdir(parents=True, exist_ok=True)
    if not places.job.exists():
        write_whole(places.job, job.model_dump_json(indent=1))
    elif read_job(places.job.read_bytes()) != job:
        raise TrainingError(f"{places.path} holds another job; a job needs a directory of its own")
    return places


async def _start(places: JobDirectory) -> Process:
    """The job in a session of its own. Its standard input ends when this process does."""
    with places.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "learner.training",
            str(places.path),
            "--watch-stdin",
            stdin=PIPE,
            stdout=log,
            stderr=STDOUT,
            start_new_session=True,
            env={**ALLOCATOR, **os.environ},
        )


async def _follow(
    process: Process, places: JobDirectory, offset: int, on_event: Callable[[Event], None]
) -> int:
    """Pass events on until the process ends."""
    ended = asyncio.create_task(process.wait())
    try:
        while not ended.done():
            await asyncio.wait((ended,), timeout=POLL_S)
            offset = _tell(places, offset, on_event)
    finally:
        ended.cancel()
    return offset


def _tell(places: JobDirectory, offset: int, on_event: Callable[[Event], None]) -> int:
    for event, end in places.read_events(offset):
        on_event(event)
        offset = end
    return offset


async def _kill(process: Process) -> None:
    """End the job and whatever it started. Checkpoints are safe against this."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _why(places: JobDirectory, process: Process) -> str:
    if places.failed.exists():
        return places.failed.read_text().strip()
    lines = places.log.read_text(errors="replace").splitlines()[-LAST_WORDS:]
    return "\n".join([f"the process ended with {process.returncode}", *lines])
