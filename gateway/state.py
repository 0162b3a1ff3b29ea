"""What one worker knows: keys, routes and engines, kept fresh by polling the state."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Self

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import Unauthorized
from gateway.keys import Key, KeyBook, KeyStore
from gateway.once import Once
from serving.database import open_database
from serving.registry import Registry, RoutingSnapshot

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 0.005
"""How often unknown keys may have the database asked whether there is news."""

_UNREADABLE = (SQLAlchemyError, sqlite3.Error)


class State:
    """The latest snapshot of the database. Reading it costs nothing; a poll costs microseconds."""

    def __init__(
        self, registry: Registry, database: Engine, *, now: Callable[[], datetime]
    ) -> None:
        self._registry = registry
        self._database = database
        self._now = now
        self._version = -1
        self._refreshed = self._looked = self._asked = 0.0
        self.keys = KeyStore(database)
        """All there is to know of keys. It reads and writes: never on the event loop."""
        self.once = Once(database)
        """The ids of requests that may be sent again. As blocking."""
        self.following = False
        """Whether somebody keeps this fresh."""
        self.snapshot: RoutingSnapshot
        self._book: KeyBook
        self._key_ids: frozenset[str] = frozenset()
        self._keep: Callable[[Collection[str]], None] | None = None
        self.refresh()

    @classmethod
    def open(cls, url: str, *, now: Callable[[], datetime]) -> Self:
        """Connect to the database at ``url``. Raises SQLAlchemyError, ValueError."""
        return cls(Registry.open(url), open_database(url), now=now)

    @property
    def age_s(self) -> float:
        """How long ago the database last answered."""
        return time.monotonic() - self._looked

    def key(self, headers: Mapping[bytes, bytes]) -> Key:
        """Who sent these headers, named in lower case. Raises Unauthorized. Costs two look-ups.

        A key that was made just now opens at once.
        """
        try:
            return self._book.key(headers)
        except Unauthorized:
            asked = time.monotonic()
            if asked - self._asked < _ASK_EVERY_S:
                raise
            self._asked = asked
            if not self._caught_up():
                raise
        return self._book.key(headers)

    def refresh(self) -> None:
        """Read everything anew."""
        version = self._registry.data_version()
        self._look_at_engines()
        self._read_keys()
        self._version = version
        self._looked = time.monotonic()

    def tell(self, keep: Callable[[Collection[str]], None]) -> None:
        """Tell ``keep`` the ids of all keys there are, now and whenever they are others."""
        self._keep = keep
        keep(self._key_ids)

    async def follow(self, *, poll_s: float, refresh_s: float) -> None:
        """Keep fresh, forever. While the database cannot be read, the last snapshot stands."""
        self.following = True
        try:
            while True:
                await asyncio.sleep(poll_s)
                try:
                    if not self._catch_up() and time.monotonic() - self._refreshed > refresh_s:
                        self._look_at_engines()
                except _UNREADABLE:
                    logger.exception("cannot read the state; serving by what is known")
                    await asyncio.sleep(1.0)
        finally:
            self.following = False

    def close(self) -> None:
        """Let go of the database."""
        self._registry.close()
        self._database.dispose()

    def _look_at_engines(self) -> None:
        """Which are silent now. Of keys there may be thousands: they are read when they change."""
        self.snapshot = self._registry.snapshot(now=self._now())
        self._refreshed = time.monotonic()

    def _read_keys(self) -> None:
        keys = self.keys.active()
        self._book = KeyBook(keys, now=self._now)
        known, self._key_ids = self._key_ids, _counted(keys.values())
        if self._keep is not None and self._key_ids != known:
            self._keep(self._key_ids)

    def _caught_up(self) -> bool:
        """Whether there was something new to know."""
        try:
            return self._catch_up()
        except _UNREADABLE:
            return False

    def _catch_up(self) -> bool:
        if self._registry.data_version() == self._version:
            self._looked = time.monotonic()
            return False
        self.refresh()
        return True


def _counted(keys: Iterable[Key]) -> frozenset[str]:
    """The ids of keys and of their makers, who may be revoked and are counted for all the same."""
    return frozenset(one.id for key in keys for one in (key, *key.counted))
