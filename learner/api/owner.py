"""The log's owner at its desk: what routes read from and write with."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request

from gateway.log.ingest import Ingester
from gateway.log.record import Record, new_id
from gateway.log.segment import sizes
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store


@dataclass(frozen=True, slots=True)
class Owner:
    """Reads what was just answered, and writes as everybody does: through the spool.

    From any thread.
    """

    log: Store
    ingester: Ingester
    spool: SpoolWriter
    now: Callable[[], datetime]
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def catch_up(self) -> None:
        """Take in what is spooled; of a long backlog only a part. Raises StoreError, OSError."""
        self.ingester.run_once()

    def catch_up_to_now(self) -> None:
        """Take in all that is spooled by now, however much. Raises StoreError, OSError."""
        by_now = sizes(self.ingester.spool)
        while self.ingester.run_once():
            offsets = self.log.offsets()
            if all(offsets.get(segment, 0) >= size for segment, size in by_now.items()):
                break

    def write(self, record: Record) -> None:
        """On return whoever asks the log sees it.

        Raises SpoolError when nothing was written; StoreError or OSError when it was, and will
        be in the log as soon as that takes it.
        """
        with self._writing:
            self.spool.append(record)
            segment = self.spool.segment
        if segment is None:
            return
        try:
            upto = segment.stat().st_size
        except FileNotFoundError:  # ingested and retired already
            return
        while self.log.offsets().get(segment.name, 0) < upto and self.ingester.run_once():
            pass


def _owner(request: Request) -> Owner:
    owner: Owner = request.app.state.owner
    return owner


Desk = Annotated[Owner, Depends(_owner)]
Tenant = Annotated[str, Header(alias="x-ratchet-tenant", min_length=1)]
"""Whom the gateway has let in; the socket is trusted."""


def _id(given: Annotated[UUID | None, Header(alias="x-ratchet-id")] = None) -> UUID:
    return given or new_id()


NewId = Annotated[UUID, Depends(_id)]
"""The id of what the request makes. A request that is sent again comes with the same one."""
