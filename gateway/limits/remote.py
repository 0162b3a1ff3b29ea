"""Limits that several machines keep together, in Redis or Valkey.

One atomic script lets a request in; what it took in truth is told afterwards, out of the
request's way, and told again until Redis has it. A worker's calls under way are leased: those of
a machine that died are given back when the lease runs out.

When Redis does not answer, requests are let in unchecked: limits protect from overuse, and an
outage of their bookkeeping must not be one of the gateway. Nothing is forgotten by it: what these
requests take is charged once Redis is back. ``unchecked`` counts them.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import GatewayError, LimitsUnusable
from gateway.http.exchange import Headers
from gateway.keys import Key, Spent
from gateway.limits.refusal import too_large
from gateway.limits.scripts import ADMIT, SETTLE
from gateway.limits.settling import Settlement, Settler
from gateway.limits.ticket import FREE, MONEY, RateHeaders, Ticket, Together
from gateway.limits.wire import (
    Level,
    Reply,
    admit_arguments,
    common,
    name,
    number,
    read,
    rows,
    spent,
    windows,
)

logger = logging.getLogger(__name__)

_PATIENCE_S = 0.5
"""How long a request waits for Redis before it is let in unchecked."""
_PAUSE_S = 1.0
"""How long requests then do not ask at all."""
_LAST_S = 5.0


class RemoteLimits:
    """One worker's view, for one event loop. Redis' clock counts unless ``now`` is given."""

    remote: Literal[True] = True

    def __init__(self, url: str, *, worker: str, now: Callable[[], int] | None = None) -> None:
        """Raises LimitsUnusable for a URL that is none. It does not connect yet."""
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=64,
                timeout=_PATIENCE_S,
                socket_timeout=_PATIENCE_S,
                socket_connect_timeout=_PATIENCE_S,
                # What timed out may have been done: asking again could let in twice.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise LimitsUnusable(f"limits: not a URL of Redis: {error}") from error
        self._redis: Any = Redis.from_pool(pool)
        self._admit = self._redis.register_script(ADMIT)
        self._settle = self._redis.register_script(SETTLE)
        self._now = now
        self._name = f"{worker}-{secrets.token_hex(6)}"
        self._lives = 0
        self._cell = f"{self._name}-0"
        self._ask_again_at = 0.0
        self._settler: Settler | None = None
        self.unchecked = 0
        """Requests let in because Redis did not answer."""

    async def admit(self, key: Key, *, tokens: int, cost: float) -> Ticket:
        """Raises RateLimited or BudgetSpent; then nothing is taken.

        Where it is the key's maker that has no room, the key's own count of requests stays.
        ``tokens`` and ``cost`` are estimates, and held until the ticket is settled.
        """
        if key.within is None:
            return await self._admitted(key, tokens, cost) if key.is_limited else FREE
        tickets: list[Ticket] = []
        try:
            for one in key.counted:
                tickets.append(await self._admitted(one, tokens, cost))  # noqa: PERF401 - in turn
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise
        return Together(tickets)

    async def _admitted(self, key: Key, tokens: int, cost: float) -> Ticket:
        limit = key.limits.tokens_per_minute
        if limit is not None and tokens > limit:
            raise too_large(key, requested=tokens)
        loop = asyncio.get_running_loop()
        settler = self._settler = self._settler or Settler(self._send)
        money, cell = round(cost * MONEY), self._cell
        hold = Settlement(key, cell, 1, tokens, money)
        if loop.time() >= self._ask_again_at:
            asking = asyncio.ensure_future(self._ask(key, cell, tokens, money))
            try:
                answer = await asyncio.shield(asking)
            except asyncio.CancelledError:
                asking.add_done_callback(partial(settler.unwanted, hold))
                raise
            except (RedisError, OSError) as error:
                self._lose_touch(loop.time(), error)
            else:
                if isinstance(answer, GatewayError):
                    raise answer
                settler.begun(key, cell)
                return RemoteTicket(settler, hold, answer)
        self.unchecked += 1
        return RemoteTicket(settler, Settlement(key, self._cell), None)

    def keep(self, key_ids: Collection[str]) -> None:
        """Nothing to do: Redis forgets by itself what no window needs any more."""

    async def used(self, key: Key) -> tuple[Spent, ...]:
        """What the key has used of its budgets, a window each. Raises LimitsUnusable."""
        try:
            fields = await self._redis.hgetall(name(key))
        except (RedisError, OSError) as error:
            raise LimitsUnusable(f"Redis does not answer: {error}") from error
        return spent(key, fields, self._clock())

    async def close(self) -> None:
        """After the last ticket is settled; waits a little for Redis to take what it has not."""
        if self._settler and (left := await self._settler.close(_LAST_S)):
            logger.error("Redis did not take the last use of %d keys; it is not counted", left)
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _ask(self, key: Key, cell: str, tokens: int, money: int) -> Level | GatewayError:
        now = self._now() if self._now else 0
        arguments = admit_arguments(key, cell, now, tokens, money)
        arguments += rows(key.budgets, self._clock())
        reply = cast("Reply", await self._admit(keys=[name(key)], args=arguments))
        return read(key, reply, tokens=tokens, money=money)

    async def _send(self, done: Settlement) -> None:
        now = self._now() if self._now else 0
        arguments = common(done.key, done.cell, now)
        arguments += (number(done.key.limits.tokens_per_minute), done.number, done.calls)
        arguments += (done.held_tokens, done.held_money, done.tokens, done.money)
        arguments += windows(done.key, self._clock())
        await self._settle(keys=[name(done.key)], args=arguments)
        self._ask_again_at = 0.0  # it is there again, should it have been away

    def _clock(self) -> int:
        """About what Redis' clock says."""
        return self._now() if self._now else time.time_ns()

    def _lose_touch(self, at: float, error: Exception) -> None:
        """Redis did not answer, or not so that we know whether it let the request in.

        What it may have let in stays with a cell that is used no more, whose lease runs out.
        """
        if at >= self._ask_again_at + _PAUSE_S:
            logger.error("Redis does not answer, limits are not kept until it does: %s", error)
        self._ask_again_at = at + _PAUSE_S
        self._lives += 1
        self._cell = f"{self._name}-{self._lives}"


class RemoteTicket:
    """See ``Ticket``."""

    __slots__ = ("_hold", "_level", "_limits", "_settler")

    def __init__(self, settler: Settler, hold: Settlement, level: Level | None) -> None:
        self._settler = settler
        self._limits = hold.key.limits
        self._hold: Settlement | None = hold
        self._level = level

    @property
    def headers(self) -> Headers:
        return RateHeaders(self._limits).at(*self._level) if self._level else []

    def settle(self, tokens: int, cost: float) -> None:
        hold = self._hold
        if hold is not None:
            self._hold = None
            hold.tokens, hold.money = tokens, round(cost * MONEY)
            self._settler.over(hold)

    def cancel(self) -> None:
        self.settle(0, 0.0)
