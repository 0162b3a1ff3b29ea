"""What one worker knows: keys, routes and engines, kept fresh by polling the state."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from gateway.keys import Key, KeyBook, KeyStore
from serving.database import open_database
from serving.registry import Registry, RoutingSnapshot

logger = logging.getLogger(__name__)


class State:
    """The latest snapshot of the database. Reading it costs nothing; a poll costs microseconds."""

    def __init__(self, registry: Registry, keys: KeyStore, *, now: Callable[[], datetime]) -> None:
        self._registry = registry
        self._key_store = keys
        self._now = now
        self._version = -1
        self._refreshed = 0.0
        self.snapshot: RoutingSnapshot
        self._book: KeyBook
        self.refresh()

    @classmethod
    def open(cls, url: str, *, now: Callable[[], datetime]) -> Self:
        """Connect to the database at ``url``."""
        return cls(Registry.open(url), KeyStore(open_database(url)), now=now)

    def key(self, headers: Mapping[bytes, bytes]) -> Key:
        """Who sent these headers, named in lower case. Raises Unauthorized. Costs two look-ups."""
        return self._book.key(headers)

    def refresh(self) -> None:
        """Read everything anew."""
        self._version = self._registry.data_version()
        self.snapshot = self._registry.snapshot(now=self._now())
        self._book = KeyBook(self._key_store.active(), now=self._now)
        self._refreshed = time.monotonic()

    async def follow(self, *, poll_s: float, refresh_s: float) -> None:
        """Keep fresh, forever. While the database cannot be read, the last snapshot stands."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                if (
                    self._registry.data_version() != self._version
                    or time.monotonic() - self._refreshed > refresh_s
                ):
                    self.refresh()
            except (SQLAlchemyError, sqlite3.Error):
                logger.exception("cannot read the state; serving by what is known")
                await asyncio.sleep(1.0)

    def close(self) -> None:
        """Let go of the database."""
        self._registry.close()
