"""How much memory everything took at most."""

import asyncio
from contextlib import suppress

import psutil

EVERY_S = 1.0


class MemoryMeter:
    """Sums the resident memory of this process and all its descendants, once a second.

    Pages that processes share are counted in each: the true peak is lower.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, await asyncio.to_thread(_total_mb))
            await asyncio.sleep(EVERY_S)


def _total_mb() -> float:
    total = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20
