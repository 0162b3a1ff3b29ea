"""The keys' table: what is known of a key, and the hash of its secret."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from gateway.keys.key import Budget, Key, Limits, Scope, Window, tenant_named
from serving.database import UtcDateTime, create_tables, read, write
from serving.registry import start_clock, touch

metadata = sa.MetaData()

Row = Mapping[str, Any]

_JSON = sa.JSON(none_as_null=True)

# Databases of earlier releases lack the later columns: NULL is what a key of theirs may.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False, unique=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("scopes", _JSON),
    sa.Column("models", _JSON),
    sa.Column("train", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("limits", _JSON),
    sa.Column("budgets", _JSON),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("old_hash", sa.String),
    sa.Column("old_until", UtcDateTime),
    sa.Column("within", sa.String, sa.ForeignKey("api_keys.id")),
)


class Rights(TypedDict, total=False):
    """What a new key may, where it is not what keys may usually."""

    scopes: frozenset[Scope]
    models: frozenset[str] | None
    train: bool
    limits: Limits
    budgets: tuple[Budget, ...]
    expires_at: datetime | None
    within: Key | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key and what became of it."""

    key: Key
    created_at: datetime
    revoked_at: datetime | None = None


class KeyTaken(Exception):
    """There is a key of this id already. Its secret cannot be shown again."""


def hashed(secret: str) -> str:
    """A key is 256 random bits, so one round of SHA-256 hides it as well as many would."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """Synchronous, from any thread; made for snapshots, not for the hot path.

    Gateways notice every change within their poll of the state, 20 ms.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, metadata)
        start_clock(engine)

    def create(
        self,
        name: str,
        *,
        tenant: str,
        at: datetime,
        key_id: str | None = None,
        **rights: Unpack[Rights],
    ) -> tuple[Key, str]:
        """A new key and its secret, which cannot be shown again. It is for inference, unless told.

        Raises ValueError for a tenant's name that no HTTP header holds; KeyTaken when there
        is a key of this id.
        """
        rights = {"scopes": frozenset({Scope.INFERENCE}), **rights}
        identity = key_id or f"key_{secrets.token_hex(8)}"
        key = Key(identity, name, tenant_named(tenant), **rights)
        secret = _new_secret()
        values = {**_row(key), "hash": hashed(secret), "created_at": at}
        try:
            with write(self._engine) as connection:
                connection.execute(api_keys.insert().values(values))
                touch(connection)
        except IntegrityError as error:
            raise KeyTaken(f"there is a key {identity} already") from error
        return key, secret

    def revoke(self, key_id: str, *, at: datetime) -> bool:
        """Whether there was such a key to revoke."""
        return self._update(key_id, revoked_at=at)

    def rotate(self, key_id: str, *, at: datetime, grace: timedelta = timedelta(0)) -> str | None:
        """A new secret for the same key; None when no such key opens.

        The one before opens for ``grace`` more. Of two rotations within it, only the last counts.
        """
        secret = _new_secret()
        old: dict[str, Any] = {"old_hash": None, "old_until": None}
        if grace:
            old = {"old_hash": api_keys.c.hash, "old_until": at + grace}
        return secret if self._update(key_id, hash=hashed(secret), **old) else None

    def active(self) -> dict[str, Key]:
        """Every key that is not revoked, expired or not, by the hash of each of its secrets."""
        keys: dict[str, Key] = {}
        rows = self._rows(api_keys.c.revoked_at.is_(None))
        for row, key in zip(rows, self._keys(rows), strict=True):
            keys[row["hash"]] = key
            until, end = row["old_until"], key.expires_at
            if until is not None:
                keys[row["old_hash"]] = replace(key, expires_at=min(until, end or until))
        return keys

    def all(self, *, tenant: str | None = None) -> list[StoredKey]:
        """Every key that is not revoked, of one tenant or of all, oldest first."""
        found: list[sa.ColumnElement[bool]] = [api_keys.c.revoked_at.is_(None)]
        if tenant is not None:
            found.append(api_keys.c.tenant == tenant)
        return self._stored(self._rows(*found))

    def get(self, key_id: str) -> StoredKey | None:
        """One key, revoked or not."""
        found = self._stored(self._rows(api_keys.c.id == key_id))
        return found[0] if found else None

    def _rows(self, *where: sa.ColumnElement[bool]) -> list[Row]:
        query = sa.select(api_keys).where(*where).order_by(api_keys.c.created_at, api_keys.c.id)
        with read(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _stored(self, rows: list[Row]) -> list[StoredKey]:
        return [
            StoredKey(key, row["created_at"], row["revoked_at"])
            for row, key in zip(rows, self._keys(rows), strict=True)
        ]

    def _keys(self, rows: list[Row]) -> Iterator[Key]:
        """The keys of ``rows``, each within its makers, which may be revoked."""
        known: dict[str, Row] = {}
        found = rows
        while found:
            known |= {row["id"]: row for row in found}
            makers = {row["within"] for row in found} - {None, *known}
            found = self._rows(api_keys.c.id.in_(makers)) if makers else []
        keys: dict[str, Key] = {}
        return (_key(row, known, keys) for row in rows)

    def _update(self, key_id: str, **values: Any) -> bool:
        opens = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        with write(self._engine) as connection:
            done = connection.execute(api_keys.update().where(*opens).values(values))
            if done.rowcount:
                touch(connection)
        return bool(done.rowcount)


def _new_secret() -> str:
    return f"sk-ratchet-{secrets.token_urlsafe(32)}"


def _row(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "train": key.train,
        "limits": asdict(key.limits),
        "budgets": [asdict(budget) for budget in key.budgets],
        "expires_at": key.expires_at,
        "within": None if key.within is None else key.within.id,
    }


def _key(row: Row, known: Mapping[str, Row], keys: dict[str, Key]) -> Key:
    """The key of a row; ``keys`` are those that were made of ``known`` rows before."""
    if row["id"] in keys:
        return keys[row["id"]]
    scopes, models, within = row["scopes"], row["models"], row["within"]
    key = keys[row["id"]] = Key(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        scopes=frozenset(Scope if scopes is None else map(Scope, scopes)),
        models=None if models is None else frozenset(models),
        train=row["train"],
        limits=Limits(**row["limits"] or {}),
        budgets=tuple(
            Budget(Window(budget["window"]), budget["tokens"], budget["money"])
            for budget in row["budgets"] or ()
        ),
        expires_at=row["expires_at"],
        within=None if within is None else _key(known[within], known, keys),
    )
    return key
