"""Group commit: who waits for the disk, and how far it has come."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

from gateway.errors import SpoolError


class GroupCommit:
    """Connects writers in event loops with the one thread that syncs.

    Records are numbered in the order of their writing. Whoever comes while a sync runs is
    served by the next one, together with everybody else who came meanwhile: no timer, and at
    most two syncs to wait for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._done = 0
        self._refused = -1
        self._why = ""

    async def wait(self, upto: int) -> None:
        """Until records up to this number are on the device. Raises SpoolError if they are not."""
        with self._lock:
            if upto <= self._refused:
                raise SpoolError(self._why)
            if upto <= self._done:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((upto, future))
        await future

    def done(self, upto: int) -> None:
        """Records up to this number are on the device. From any thread."""
        with self._lock:
            self._done = upto
            ready = self._ready(upto)
        _settle(ready, None)

    def refuse(self, upto: int, why: str) -> None:
        """The device refused the records up to this number. From any thread."""
        with self._lock:
            self._done = self._refused = upto
            self._why = why
            ready = self._ready(upto)
        _settle(ready, why)

    def _ready(self, upto: int) -> list[asyncio.Future[None]]:
        ready = [future for number, future in self._waiting if number <= upto]
        self._waiting = [(number, future) for number, future in self._waiting if number > upto]
        return ready


def _settle(futures: Sequence[asyncio.Future[None]], why: str | None) -> None:
    """Wake each waiter in its own loop."""
    for loop in {future.get_loop() for future in futures}:
        mine = [future for future in futures if future.get_loop() is loop]
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_wake, mine, why)


def _wake(futures: Sequence[asyncio.Future[None]], why: str | None) -> None:
    for future in futures:
        if future.done():  # the waiter was cancelled
            continue
        if why is None:
            future.set_result(None)
        else:
            future.set_exception(SpoolError(why))
