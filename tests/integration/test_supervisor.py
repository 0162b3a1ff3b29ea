"""Real child processes: restarted, stopped, and nothing left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serving.errors import LaunchError
from serving.supervisor import (
    Backoff,
    ChildEvent,
    ChildEventKind,
    ChildProcess,
    Command,
    Supervisor,
    end_orphans,
)

QUICK = Backoff(first_s=0.05, most_s=0.2, stable_s=60.0)

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"

# Starts a child of its own, which outlives it unless the whole group is ended.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def command(folder: Path, code: str) -> Command:
    return Command(
        name="child",
        argv=(sys.executable, "-c", code),
        env=dict(os.environ),
        log=folder / "child.log",
        pid_file=folder / "child.pid",
    )


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def logged(folder: Path, word: str) -> bool:
    return word in (folder / "child.log").read_text()


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    events: list[ChildEvent] = []
    async with Supervisor(
        command(tmp_path, SLEEPER), backoff=QUICK, notify=events.append
    ) as supervisor:
        first = supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)

        await until(lambda: supervisor.pid not in (None, first))

        second = supervisor.pid
    assert second is not None
    assert [event.kind for event in events] == [
        ChildEventKind.STARTED,
        ChildEventKind.EXITED,
        ChildEventKind.STARTED,
        ChildEventKind.STOPPED,
    ]
    assert events[1].code == -signal.SIGKILL
    assert not alive(second)


async def test_a_child_that_keeps_failing_is_started_later_and_later(tmp_path: Path) -> None:
    events: list[ChildEvent] = []

    async with Supervisor(
        command(tmp_path, "raise SystemExit(3)"), backoff=QUICK, notify=events.append
    ):
        await until(lambda: len(events) >= 8)

    exits = [event for event in events if event.kind is ChildEventKind.EXITED]
    assert [event.delay_s for event in exits[:4]] == [0.05, 0.1, 0.2, 0.2]
    assert {event.code for event in exits} == {3}


def test_a_child_that_was_stable_starts_its_backoff_anew() -> None:
    backoff = Backoff(first_s=1.0, most_s=10.0)

    assert [backoff.delay(failures) for failures in (1, 2, 3, 4, 5, 1000)] == [
        1.0,
        2.0,
        4.0,
        8.0,
        10.0,
        10.0,
    ]


async def test_the_family_of_a_killed_child_is_ended_before_it_is_started_again(
    tmp_path: Path,
) -> None:
    async with Supervisor(command(tmp_path, PARENT), backoff=QUICK) as supervisor:
        await until(lambda: logged(tmp_path, "child"))
        first, orphan = supervisor.pid, int((tmp_path / "child.log").read_text().split()[1])
        assert first is not None
        os.kill(first, signal.SIGKILL)

        await until(lambda: supervisor.pid not in (None, first))

        assert not alive(orphan)


async def test_a_stop_is_clean_and_forgets_the_process(tmp_path: Path) -> None:
    child = await ChildProcess.start(command(tmp_path, SLEEPER))
    await until(lambda: logged(tmp_path, "up"))
    kept = json.loads((tmp_path / "child.pid").read_text())

    code = await child.stop(grace_s=10.0)

    assert kept["pid"] == child.pid
    assert code == -signal.SIGTERM
    assert not (tmp_path / "child.pid").exists()


async def test_a_child_that_ignores_the_request_is_killed_with_its_family(tmp_path: Path) -> None:
    child = await ChildProcess.start(command(tmp_path, DEAF))
    await until(lambda: logged(tmp_path, "deaf"))

    code = await child.stop(grace_s=0.2)

    assert code == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_a_launch_error(tmp_path: Path) -> None:
    missing = Command(
        name="child",
        argv=("/nowhere/program",),
        env={},
        log=tmp_path / "child.log",
        pid_file=tmp_path / "child.pid",
    )

    with pytest.raises(LaunchError, match="cannot be started"):
        await ChildProcess.start(missing)


async def test_output_of_every_run_is_in_one_log(tmp_path: Path) -> None:
    for word in ("one", "two"):
        child = await ChildProcess.start(command(tmp_path, f"print({word!r})"))
        assert await child.wait() == 0

    assert child.last_lines() == "one\ntwo"


async def test_a_successor_ends_what_a_dead_predecessor_left_running(tmp_path: Path) -> None:
    # A predecessor in a process of its own, so that it can be killed as we could be.
    code = f"""
import asyncio, os, sys
from pathlib import Path
from serving.supervisor import ChildProcess, Command
async def main():
    folder = Path({str(tmp_path)!r})
    await ChildProcess.start(Command("child", (sys.executable, "-c", {PARENT!r}),
        dict(os.environ), folder / "child.log", folder / "child.pid"))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    predecessor = subprocess.Popen([sys.executable, "-c", code])  # noqa: ASYNC220
    await until(lambda: (tmp_path / "child.log").exists() and logged(tmp_path, "child"))
    leader = json.loads((tmp_path / "child.pid").read_text())["pid"]
    member = int((tmp_path / "child.log").read_text().split()[1])
    predecessor.kill()
    predecessor.wait()
    os.kill(leader, signal.SIGKILL)  # the leader may be dead too: its family is found anyway
    assert alive(member)

    child = await ChildProcess.start(command(tmp_path, SLEEPER))

    assert not alive(leader)
    assert not alive(member)
    await child.stop(grace_s=5.0)


def test_a_process_id_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    long_ago = time.time() - 10_000
    (tmp_path / "child.pid").write_text(json.dumps({"pid": bystander.pid, "started": long_ago}))

    ended = end_orphans(tmp_path / "child.pid")

    assert not ended
    assert alive(bystander.pid)
    bystander.kill()
    bystander.wait()
