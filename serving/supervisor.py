"""Child processes that are kept running, and that leave nothing behind.

A child leads a session of its own, so that Ctrl-C in a terminal reaches only us and its whole
family can be ended at once: vLLM's engine core, for one, survives the death of its parent.
"""

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.errors import LaunchError
from serving.session import end_orphans, end_session, remember, signal_session

__all__ = [
    "Backoff",
    "ChildEvent",
    "ChildEventKind",
    "ChildProcess",
    "Command",
    "Supervisor",
    "end_orphans",
    "last_lines",
]

log = logging.getLogger(__name__)

_LOG_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, where its output goes, and where its process id is kept."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    pid_file: Path
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next start; all in seconds."""

    first_s: float = 0.5
    most_s: float = 30.0
    stable_s: float = 60.0
    """A child that ran this long was well: its next failure counts as the first."""

    def delay(self, failures: int) -> float:
        """The wait after that many failures in a row, doubling each time."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))


class ChildEventKind(StrEnum):
    """What happened to a child."""

    STARTED = "started"  # it runs; whether it is well is its owner's business
    EXITED = "exited"  # it ended by itself or was killed, and will be started again
    STOPPED = "stopped"  # we ended it


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """One change in a child's life. ``code`` is negative for a signal."""

    name: str
    kind: ChildEventKind
    pid: int
    code: int | None = None
    delay_s: float | None = None


class ChildProcess:
    """One run of a command, from start to the end of its last descendant."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.pid = process.pid
        self._process = process
        self._ended = asyncio.create_task(self._reap(), name=f"reap {command.name}")

    @classmethod
    async def start(cls, command: Command) -> Self:
        """Start it, after ending what a dead predecessor left behind.

        LaunchError when the program cannot be executed.
        """
        await asyncio.to_thread(end_orphans, command.pid_file)
        command.log.parent.mkdir(parents=True, exist_ok=True)
        if command.log.exists() and command.log.stat().st_size > _LOG_BYTES:
            command.log.replace(command.log.with_suffix(command.log.suffix + ".1"))
        with command.log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    env=dict(command.env),
                    cwd=command.cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise LaunchError(f"{command.name} cannot be started: {error}") from error
        remember(command.pid_file, process.pid)
        return cls(command, process)

    @property
    def running(self) -> bool:
        """Whether it, or what it left behind, is still there."""
        return not self._ended.done()

    async def exited(self) -> int:
        """Its exit code as soon as it has one; its descendants may still be ending."""
        return await self._process.wait()

    async def wait(self) -> int:
        """Its exit code, once it and its whole group have ended; negative for a signal."""
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_s: float) -> int:
        """Ask it to end, and end its whole group when it has not after ``grace_s``."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            log.warning("%s did not stop within %.0f s and is killed", self.command.name, grace_s)
            signal_session(self.pid, signal.SIGKILL)
            return await self.wait()

    def last_lines(self, count: int = 20) -> str:
        """The end of its log, for an error message."""
        return last_lines(self.command.log, count)

    async def _reap(self) -> int:
        code = await self._process.wait()
        await asyncio.to_thread(end_session, self.pid)
        self.command.pid_file.unlink(missing_ok=True)
        return code


class Supervisor:
    """Keeps one command running: ``async with``, or ``start`` and ``stop``.

    It is started again whenever it ends, later and later while it keeps failing. ``notify``
    is called for every change, from the event loop, and must not block.
    """

    def __init__(
        self,
        command: Command,
        *,
        backoff: Backoff | None = None,
        grace_s: float = 10.0,
        notify: Callable[[ChildEvent], None] = lambda _: None,
    ) -> None:
        self.command = command
        self._backoff = backoff or Backoff()
        self._grace_s = grace_s
        self._notify = notify
        self._stopping = asyncio.Event()
        self._child: ChildProcess | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The child's process id; None between two runs."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the child and keep it running. LaunchError when it cannot be executed."""
        first = await self._launch()
        self._task = asyncio.create_task(self._keep(first), name=f"supervise {self.command.name}")

    async def stop(self) -> None:
        """End the child for good; returns when its whole group is gone."""
        self._stopping.set()
        if self._child is not None:
            await self._child.stop(grace_s=self._grace_s)
        if self._task is not None:
            await self._task

    async def restart(self, *, grace_s: float | None = None) -> None:
        """End the child, for example because it hangs; it is started again as after a crash."""
        if self._child is not None:
            await self._child.stop(grace_s=self._grace_s if grace_s is None else grace_s)

    async def _keep(self, first: ChildProcess) -> None:
        child: ChildProcess | None = first
        failures = 0
        while child is not None:
            started = time.monotonic()
            code = await child.exited()
            if self._stopping.is_set():
                await child.wait()
                self._child = None
                self._tell(ChildEventKind.STOPPED, child.pid, code=code)
                return
            stable = time.monotonic() - started >= self._backoff.stable_s
            failures = 1 if stable else failures + 1
            delay = self._backoff.delay(failures)
            self._tell(ChildEventKind.EXITED, child.pid, code=code, delay_s=delay)
            await child.wait()
            self._child = None
            child = await self._next(delay)

    async def _next(self, delay_s: float) -> ChildProcess | None:
        """The next run after a pause; None when we were asked to stop meanwhile."""
        while not await self._stop_within(delay_s):
            try:
                child = await self._launch()
            except LaunchError as error:  # the program may be back, after an upgrade
                log.error("%s", error)  # noqa: TRY400
                delay_s = self._backoff.most_s
                continue
            if self._stopping.is_set():
                await child.stop(grace_s=self._grace_s)
            return child
        return None

    async def _stop_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _launch(self) -> ChildProcess:
        child = await ChildProcess.start(self.command)
        self._child = child
        self._tell(ChildEventKind.STARTED, child.pid)
        return child

    def _tell(
        self,
        kind: ChildEventKind,
        pid: int,
        *,
        code: int | None = None,
        delay_s: float | None = None,
    ) -> None:
        self._notify(ChildEvent(self.command.name, kind, pid, code, delay_s))


def last_lines(path: Path, count: int) -> str:
    """The last ``count`` lines of a text file; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - count * 400))
            return "\n".join(deque(file.read().decode(errors="replace").splitlines(), count))
    except FileNotFoundError:
        return ""
