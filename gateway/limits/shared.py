"""Limits that all workers of one machine keep together, exactly, without a service.

A request costs two short locks: one to let it in, one when it is over. What a killed worker had
under way is given back by the others within seconds, its tokens and money too.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from gateway.errors import GatewayError
from gateway.keys import Key, Spent
from gateway.limits.account import Account, SlotGone
from gateway.limits.budgets import spent
from gateway.limits.table import Digest, Life, Table, anybody, digest
from gateway.limits.ticket import FREE, Free, Ticket, Together
from gateway.limits.watch import Watch


class SharedLimits:
    """One worker's view; for one thread. Make it after any fork: a child would share its life."""

    remote: Literal[False] = False
    unchecked: Literal[0] = 0
    """Nobody else has to answer."""

    def __init__(self, directory: Path, *, now: Callable[[], int] = time.time_ns) -> None:
        """Raises LimitsUnusable."""
        self._table = Table(directory)
        self._now = now
        self._in_use: Callable[[Digest], bool] = anybody
        self._accounts: dict[str, _Admits] = {}
        self._life = Life.any(directory)
        self._table.heal(self._life.worker)
        self._table.enlist(self._life.worker)
        self._watch = Watch(directory, self._life.worker)

    def admit(self, key: Key, *, tokens: int, cost: float) -> Ticket:
        """Raises RateLimited or BudgetSpent; then nothing is taken. Unavailable: the disk is full.

        Where it is the key's maker that has no room, the key's own count of requests stays.
        ``tokens`` and ``cost`` are estimates, and held until the ticket is settled.
        """
        account = self._accounts.get(key.id)
        if account is None or account.key is not key:
            account = self._account(key)
        try:
            return account.admit(tokens, cost)
        except SlotGone:
            return self._account(key).admit(tokens, cost)

    def keep(self, key_ids: Collection[str]) -> None:
        """All keys there are. The slots of others are taken over when the table is full."""
        digests = frozenset(map(digest, key_ids))
        self._in_use = digests.__contains__
        for key_id in self._accounts.keys() - key_ids:
            del self._accounts[key_id]

    async def used(self, key: Key) -> tuple[Spent, ...]:
        """What the key has used of its budgets, a window each."""
        number = self._table.find(digest(key.id))
        return spent(key, None if number is None else self._table.words(number), self._now())

    async def close(self) -> None:
        """After the last ticket is settled."""
        self._watch.stop()
        self._table.heal(self._life.worker)
        self._life.end()
        self._table.close()

    def _account(self, key: Key) -> "_Admits":
        account: _Admits
        if key.within is not None:
            account = _Nested(key, tuple(map(self._counting, key.counted)))
        elif key.is_limited:
            account = self._counting(key)
        else:
            account = _Unlimited(key)
        self._accounts[key.id] = account
        return account

    def _counting(self, key: Key) -> Account:
        number = self._table.claim(digest(key.id), self._now(), self._in_use)
        return Account(
            key,
            self._table.words(number),
            stripe=self._table.stripe(number),
            worker=self._life.worker,
            now=self._now,
        )


class _Unlimited:
    """The account of a key that nothing is counted of."""

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        self.key = key

    def admit(self, tokens: int, cost: float) -> Free:  # noqa: ARG002 - like an Account
        return FREE


class _Nested:
    """The account of a key that counts for its makers, too."""

    __slots__ = ("_accounts", "key")

    def __init__(self, key: Key, accounts: tuple[Account, ...]) -> None:
        self.key = key
        self._accounts = accounts

    def admit(self, tokens: int, cost: float) -> Together:
        tickets = []
        try:
            for account in self._accounts:
                tickets.append(account.admit(tokens, cost))  # noqa: PERF401 - one may refuse
        except (GatewayError, SlotGone):
            for ticket in tickets:
                ticket.cancel()
            raise
        return Together(tickets)


_Admits = Account | _Nested | _Unlimited
