"""What Redis is yet to be told, key by key."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from gateway.errors import GatewayError
from gateway.keys import Key
from gateway.limits.wire import LEASE_S, Level

logger = logging.getLogger(__name__)

_AGAIN_S = 0.2
_RENEW_S = LEASE_S / 3
_AT_ONCE = 32


@dataclass(slots=True)
class Settlement:
    """The ends of some calls of one key, added up; with none, a sign of life."""

    key: Key
    cell: str
    calls: int = 0
    held_tokens: int = 0
    held_money: int = 0
    tokens: int = 0
    money: int = 0
    number: int = 0
    """Its place among all that this worker has sent; the same when it is sent again."""


class Settler:
    """Sends settlements until Redis has them, and keeps the leases of calls under way.

    For the event loop it was made on.
    """

    def __init__(self, send: Callable[[Settlement], Awaitable[None]]) -> None:
        self._send = send
        self._pending: dict[tuple[str, str], Settlement] = {}
        self._under_way: dict[tuple[str, str], tuple[Key, int]] = {}
        self._number = 0
        self._closing = False
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._task = asyncio.create_task(self._run(), name="limits")

    def begun(self, key: Key, cell: str) -> None:
        """A call is under way: its lease is renewed until it is settled."""
        _, calls = self._under_way.get((key.id, cell), (key, 0))
        self._under_way[key.id, cell] = key, calls + 1

    def over(self, ended: Settlement) -> None:
        """Add it to what is sent next."""
        place = ended.key.id, ended.cell
        sum_ = self._pending.setdefault(place, Settlement(ended.key, ended.cell))
        sum_.calls += ended.calls
        sum_.held_tokens += ended.held_tokens
        sum_.held_money += ended.held_money
        sum_.tokens += ended.tokens
        sum_.money += ended.money
        if ended.calls:
            _, calls = self._under_way.pop(place)
            if calls > ended.calls:
                self._under_way[place] = ended.key, calls - ended.calls
        self._wake.set()

    def unwanted(self, hold: Settlement, asked: "asyncio.Future[Level | GatewayError]") -> None:
        """Whoever asked is gone: if it was let in, it is over at once."""
        if (
            not asked.cancelled()
            and not asked.exception()
            and not isinstance(asked.result(), GatewayError)
        ):
            self.begun(hold.key, hold.cell)
            self.over(hold)

    async def close(self, patience_s: float) -> int:
        """Send what is left; how many keys' settlements Redis would not take in time."""
        self._closing = True
        self._wake.set()
        try:
            await asyncio.wait_for(self._task, patience_s)
        except TimeoutError:
            return max(1, len(self._pending))
        return 0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + _RENEW_S
        while self._pending or not self._closing:
            if loop.time() >= renew_at:
                renew_at = loop.time() + _RENEW_S
                self._renew()
            await self._flush()
            if not self._closing:
                await self._rest(renew_at - loop.time())

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.0, seconds))
        except TimeoutError:
            return

    def _renew(self) -> None:
        for (key_id, cell), (key, _) in self._under_way.items():
            self._pending.setdefault((key_id, cell), Settlement(key, cell))

    async def _flush(self) -> None:
        """All that was pending; one settlement of a key is through before its next one."""
        self._wake.clear()
        batch, self._pending = self._pending, {}
        for settlement in batch.values():
            self._number += 1
            settlement.number = self._number
        await asyncio.gather(*map(self._deliver, batch.values()))

    async def _deliver(self, settlement: Settlement) -> None:
        async with self._slots:
            while True:
                try:
                    await self._send(settlement)
                except (RedisError, OSError) as error:
                    logger.debug("Redis did not take a settlement, it is sent again: %s", error)
                    await asyncio.sleep(_AGAIN_S)
                else:
                    return
