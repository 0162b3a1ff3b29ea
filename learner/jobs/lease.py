"""Leases: of several learners, one acts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from serving.database import UtcDateTime, create_tables, write

metadata = sa.MetaData()

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act under ``name`` until ``expires_at``.

    ``token`` grows with every change of holder, so that an old holder cannot release a new lease.
    """

    name: str
    holder: str
    token: int
    expires_at: datetime


class LeaseStore:
    """The leases' table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, metadata)

    def acquire(self, name: str, holder: str, *, ttl: timedelta, now: datetime) -> Lease | None:
        """Take or renew the lease; None while somebody else holds it."""
        with write(self._engine) as connection:
            query = sa.select(leases).where(leases.c.name == name)
            row = connection.execute(query).mappings().first()
            lease = _next(row, name, holder, ttl, now)
            if lease is None:
                return None
            values = {
                "holder": lease.holder,
                "token": lease.token,
                "expires_at": lease.expires_at,
            }
            if row is None:
                connection.execute(sa.insert(leases).values(name=name, **values))
            else:
                connection.execute(sa.update(leases).where(leases.c.name == name).values(**values))
        return lease

    def release(self, lease: Lease, *, now: datetime) -> None:
        """Let the next one in at once; nothing if the lease is no longer ours."""
        with write(self._engine) as connection:
            connection.execute(
                sa.update(leases)
                .where(leases.c.name == lease.name, leases.c.token == lease.token)
                .values(expires_at=now)
            )


def _next(
    row: Mapping[Any, Any] | None, name: str, holder: str, ttl: timedelta, now: datetime
) -> Lease | None:
    if row is None:
        return Lease(name, holder, 1, now + ttl)
    if row["holder"] == holder:
        return Lease(name, holder, row["token"], now + ttl)
    if row["expires_at"] <= now:
        return Lease(name, holder, row["token"] + 1, now + ttl)
    return None
