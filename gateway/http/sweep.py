"""One timer for all deadlines of a kind, instead of one for each."""

import asyncio
from collections.abc import Callable


class Sweep:
    """Calls ``look(now)`` every so often, as long as it says that something is left to watch.

    ``now`` is the loop's clock. What is due is noticed up to one period late.
    """

    __slots__ = ("_look", "_loop", "_period_s", "_timer")

    def __init__(
        self, look: Callable[[float], bool], loop: asyncio.AbstractEventLoop, *, period_s: float
    ) -> None:
        self._look = look
        self._loop = loop
        self._period_s = period_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """There is something to watch. Does nothing while it runs already."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._period_s, self._run)

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        if self._look(self._loop.time()):
            self.start()
