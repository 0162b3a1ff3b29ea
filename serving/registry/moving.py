"""Adapter versions in the database: read, added, moved by compare-and-swap, audited."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from serving.errors import StaleStage, UnknownAlias, UnknownVersion
from serving.registry.adapter import AdapterVersion, Alias, Move
from serving.registry.clock import touch
from serving.registry.rows import alias_from, move_from, version_from, version_values
from serving.registry.stage import ANSWERING, Stage, check_move
from serving.registry.tables import adapter_versions, aliases, moves


@dataclass(frozen=True, slots=True)
class Grounds:
    """When a version moved, and why."""

    at: datetime
    verdict_id: str | None = None
    reason: str | None = None


def find_alias(connection: Connection, name: str) -> Alias | None:
    """The alias; in a write transaction it stays locked until the end.

    The lock keeps two movers of one alias apart on Postgres; SQLite has one writer anyway.
    """
    query = sa.select(aliases).where(aliases.c.name == name)
    if connection.get_execution_options().get("writes"):
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    return alias_from(row) if row else None


def require_alias(connection: Connection, name: str) -> Alias:
    """The alias; UnknownAlias when it is not declared."""
    alias = find_alias(connection, name)
    if alias is None:
        raise UnknownAlias(f"no alias {name!r} is declared")
    return alias


def require_version(connection: Connection, alias: str, version: int) -> AdapterVersion:
    """The version as it is now; UnknownVersion when there is none."""
    row = connection.execute(
        sa.select(adapter_versions).where(
            adapter_versions.c.alias == alias, adapter_versions.c.version == version
        )
    ).one_or_none()
    if row is None:
        raise UnknownVersion(f"{alias} has no version {version}")
    return version_from(row)


def newest_first(connection: Connection, alias: str) -> tuple[AdapterVersion, ...]:
    """All versions of an alias."""
    rows = connection.execute(
        sa.select(adapter_versions)
        .where(adapter_versions.c.alias == alias)
        .order_by(adapter_versions.c.version.desc())
    )
    return tuple(version_from(row) for row in rows)


def live_of(connection: Connection, alias: str) -> AdapterVersion | None:
    """The version that answers the alias."""
    row = connection.execute(
        sa.select(adapter_versions).where(
            adapter_versions.c.alias == alias, adapter_versions.c.stage == Stage.LIVE.value
        )
    ).one_or_none()
    return version_from(row) if row else None


def versions_on(connection: Connection, served_base: str) -> tuple[AdapterVersion, ...]:
    """Every version of every alias of a base."""
    rows = connection.execute(
        sa.select(adapter_versions)
        .join(aliases, aliases.c.name == adapter_versions.c.alias)
        .where(aliases.c.served_base == served_base)
    )
    return tuple(version_from(row) for row in rows)


def insert(connection: Connection, added: AdapterVersion) -> None:
    """Add a candidate."""
    connection.execute(adapter_versions.insert().values(**version_values(added)))
    _audit(connection, added, added.stage, Grounds(at=added.created_at))


def move(
    connection: Connection,
    old: AdapterVersion,
    stage: Stage,
    why: Grounds,
    *,
    predecessor: int | None = None,
) -> AdapterVersion:
    """Bring ``old`` to ``stage`` if it is still as given; StaleStage if not, or not allowed."""
    check_move(old.label, old.stage, stage)
    changes: dict[str, Any] = {"stage": stage.value, "changed_at": why.at}
    if why.verdict_id is not None:
        changes["verdict_id"] = why.verdict_id
    if why.reason is not None:
        changes["reason"] = why.reason
    if stage is Stage.LIVE:
        changes |= {"predecessor": predecessor, "answered_until": None}
    elif old.stage in ANSWERING:
        changes["answered_until"] = why.at
    swapped = connection.execute(
        adapter_versions.update()
        .where(
            adapter_versions.c.alias == old.alias,
            adapter_versions.c.version == old.version,
            adapter_versions.c.stage == old.stage.value,
        )
        .values(**changes)
    )
    if swapped.rowcount != 1:
        raise StaleStage(f"{old.label} is no longer {old.stage}")
    _audit(connection, old, stage, why)
    touch(connection)
    return require_version(connection, old.alias, old.version)


def audit_of(connection: Connection, alias: str) -> tuple[Move, ...]:
    """Every move of an alias's versions, oldest first."""
    rows = connection.execute(sa.select(moves).where(moves.c.alias == alias).order_by(moves.c.id))
    return tuple(move_from(row) for row in rows)


def _audit(connection: Connection, version: AdapterVersion, new: Stage, why: Grounds) -> None:
    first = new is Stage.CANDIDATE
    connection.execute(
        moves.insert().values(
            alias=version.alias,
            version=version.version,
            old=None if first else version.stage.value,
            new=new.value,
            at=why.at,
            verdict_id=why.verdict_id,
            reason=why.reason,
        )
    )
