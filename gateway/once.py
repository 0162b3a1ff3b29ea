"""``Idempotency-Key``: a request that is sent again has the effect of one."""

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from serving.database import UtcDateTime, create_tables, read, write

REMEMBERED = timedelta(days=7)
"""How long a request is known after it was first sent."""

metadata = sa.MetaData()

requests = sa.Table(
    "idempotent_requests",
    metadata,
    sa.Column("hash", sa.String, primary_key=True),
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False, index=True),
)


class Once:
    """Gives what a request makes its id, the same however often it is sent.

    Whoever keeps what it made by that id keeps it once. Synchronous, from any thread; every
    gateway on the database agrees.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, metadata)

    def id(self, what: str, *, tenant: str, key: str, new: UUID, at: datetime) -> UUID:
        """``new``, unless the tenant has asked for the same thing with this key before."""
        name = hashlib.sha256("\0".join((what, tenant, key)).encode()).hexdigest()
        with read(self._engine) as connection:
            known = _known(connection, name)
        if known is not None:
            return known
        try:
            with write(self._engine) as connection:
                connection.execute(requests.delete().where(requests.c.at < at - REMEMBERED))
                connection.execute(requests.insert().values(hash=name, id=new, at=at))
        except IntegrityError:  # it was sent twice at once
            with read(self._engine) as connection:
                return _known(connection, name) or new
        return new


def _known(connection: Connection, name: str) -> UUID | None:
    query = sa.select(requests.c.id).where(requests.c.hash == name)
    found: UUID | None = connection.execute(query).scalar_one_or_none()
    return found
