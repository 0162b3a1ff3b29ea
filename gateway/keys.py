"""API keys: made once, shown once, kept as hashes."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, MetaData, String, Table, insert, select, update
from sqlalchemy.engine import Engine

from serving.database import UtcDateTime, create_tables, read, write

metadata = MetaData()

_TENANT = re.compile("[!-~]{1,128}")

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("tenant", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)


class Scope(StrEnum):
    """What a key opens."""

    INFERENCE = "inference"  # calls to models, feedback, reading one's own stored completions
    TRAIN = "train"  # what starts training: files, jobs, evaluations
    ADMIN = "admin"  # the tenant's keys, its usage, its erasures


class Window(StrEnum):
    """How long a budget lasts before it begins anew, in calendar units of UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"  # never begins anew


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast a key may go; None: as fast as it can."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and completion together."""
    concurrency: int | None = None
    """Requests under way at once."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may use up in one window."""

    window: Window
    tokens: int | None = None
    money: float | None = None
    """In the currency of the configured prices."""


EVERYTHING = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Key:
    """Who is calling, and what it may. The secret itself is nowhere in our keeping."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope] = EVERYTHING
    models: frozenset[str] | None = None
    """The names it may put in ``model``; None: any."""
    train: bool = True
    """Whether its calls may be learnt from."""
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()
    expires_at: datetime | None = None


def hashed(secret: str) -> str:
    """A key is 256 random bits, so one round of SHA-256 hides it as well as many would."""
    return hashlib.sha256(secret.encode()).hexdigest()


def tenant_named(name: str) -> str:
    """The same name. Raises ValueError for one that no HTTP header holds, so no key can have."""
    if not _TENANT.fullmatch(name):
        raise ValueError(
            "a tenant's name is 1 to 128 letters, digits and signs of ASCII, without spaces"
        )
    return name


class KeyStore:
    """The keys' table. Synchronous; made for snapshots, not for the hot path."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, metadata)

    def create(self, name: str, *, tenant: str, at: datetime) -> tuple[Key, str]:
        """A new key and its secret, which cannot be shown again.

        Raises ValueError for a tenant's name that no HTTP header holds.
        """
        tenant = tenant_named(tenant)
        secret = f"sk-ratchet-{secrets.token_urlsafe(32)}"
        key = Key(id=f"key_{secrets.token_hex(8)}", name=name, tenant=tenant)
        with write(self._engine) as connection:
            connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    name=name,
                    tenant=tenant,
                    hash=hashed(secret),
                    created_at=at,
                )
            )
        return key, secret

    def revoke(self, key_id: str, *, at: datetime) -> bool:
        """Whether there was such a key to revoke. Gateways notice at their next refresh, in 2 s."""
        with write(self._engine) as connection:
            done = connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=at)
            )
        return bool(done.rowcount)

    def active(self) -> dict[str, Key]:
        """Every key that opens, by its hash."""
        query = select(api_keys).where(api_keys.c.revoked_at.is_(None))
        with read(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
        return {row["hash"]: Key(row["id"], row["name"], row["tenant"]) for row in rows}
