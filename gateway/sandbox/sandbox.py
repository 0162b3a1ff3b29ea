"""One function of one file, called where it can do no harm."""

import asyncio
import logging
from pathlib import Path

from gateway.errors import CallFailed, CodeInvalid, SandboxUnusable
from gateway.sandbox.limits import Limits
from gateway.sandbox.worker import Code, Worker

logger = logging.getLogger(__name__)


class Sandbox:
    """Processes that are kept warm; one that misbehaves is replaced.

    The function sees no file of this machine but a read-only Python without packages, no
    network, no environment, no other process; it can start none and write nowhere. It takes what
    JSON makes of a payload and returns what JSON takes. Its module lives on between calls.
    """

    def __init__(self, file: Path, function: str, limits: Limits) -> None:
        self._file = file
        self._function = function
        self._limits = limits
        self._free = asyncio.Semaphore(limits.workers)
        self._idle: list[Worker] = []
        self._renewing: set[asyncio.Task[None]] = set()
        self._code: Code
        self._closed = False

    async def start(self) -> None:
        """Load the file. Raises CodeInvalid, with its line, or SandboxUnusable."""
        try:
            source = self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CodeInvalid(f"{self._file}: it cannot be read: {error}") from error
        self._code = Code(source, self._file, self._function)
        self._idle.append(await Worker.start(self._code, self._limits))

    async def call(self, payload: bytes) -> bytes:
        """What the function returns for a payload, both JSON; callers take turns.

        Raises CallFailed: it raised, was too slow or too big, died, or all workers were busy.
        """
        try:
            async with asyncio.timeout(self._limits.wall_s):
                await self._free.acquire()
        except TimeoutError as error:
            waited = f"{self._limits.wall_s:g} s"
            raise CallFailed(f"no worker was free for {waited}") from error
        worker: Worker | None = None
        try:
            worker = await self._worker()
            return await worker.call(payload)
        finally:
            self._leave(worker)

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        for task in self._renewing:
            task.cancel()
        await asyncio.gather(*self._renewing, return_exceptions=True)
        for worker in self._idle:
            worker.kill()

    async def _worker(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
        try:
            return await Worker.start(self._code, self._limits)
        except (CodeInvalid, SandboxUnusable) as error:
            raise CallFailed(f"its process does not start: {error}") from error

    def _leave(self, worker: Worker | None) -> None:
        """Free a place; that of a dead worker only when another one stands there."""
        if worker is None:
            self._free.release()
        elif self._closed:
            worker.kill()
        elif worker.alive:
            self._idle.append(worker)
            self._free.release()
        else:
            task = asyncio.create_task(self._renew())
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)

    async def _renew(self) -> None:
        try:
            self._idle.append(await Worker.start(self._code, self._limits))
        except (CodeInvalid, SandboxUnusable):
            logger.exception("%s does not start again", self._file)
        finally:
            self._free.release()
