"""The registry: which adapter answers which alias, how far each has come, and who serves it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from serving.artifact import Artifact
from serving.database import open_database, read, write
from serving.errors import NotResident, StaleStage
from serving.registry import moving, reporting, tables, wanting
from serving.registry.adapter import AdapterVersion, Alias, Move, Promotion
from serving.registry.clock import RoutingClock, start_clock, touch
from serving.registry.fleet import STALE_AFTER_S, EngineReport, RoutingSnapshot
from serving.registry.rows import alias_from
from serving.registry.stage import Stage, check_move


class Registry:
    """Aliases, adapter versions and engines in one database.

    Synchronous and safe to use from several threads and processes; a call takes about a
    millisecond to read and one disk sync to write. Every write is one transaction.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._clock = RoutingClock(engine)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open ``url``, creating what is missing; several processes may do so at once."""
        engine = open_database(url)
        start_clock(engine)
        return cls(engine)

    def close(self) -> None:
        """Let go of every connection."""
        self._clock.close()
        self._engine.dispose()

    def declare(self, alias: str, base: str, served_base: str, at: datetime) -> None:
        """Make ``alias`` known; repeating it changes nothing.

        An alias that has adapters keeps its base, they fit no other: StaleStage then.
        """
        columns = tables.aliases.c
        with write(self._engine) as connection:
            known = moving.find_alias(connection, alias)
            if known == Alias(alias, base, served_base):
                return
            if known is None:
                row = {"name": alias, "base": base, "served_base": served_base, "declared_at": at}
                connection.execute(tables.aliases.insert().values(**row))
            elif known.base != base and moving.newest_first(connection, alias):
                raise StaleStage(f"{alias} has adapters of {known.base}: declare a new alias")
            else:
                connection.execute(
                    tables.aliases.update()
                    .where(columns.name == alias)
                    .values(base=base, served_base=served_base)
                )
            touch(connection)

    def aliases(self) -> tuple[Alias, ...]:
        """Every declared alias, by name."""
        with read(self._engine) as connection:
            rows = connection.execute(sa.select(tables.aliases).order_by(tables.aliases.c.name))
            return tuple(alias_from(row) for row in rows)

    def add(
        self, alias: str, artifact: Artifact, *, at: datetime, lineage: Mapping[str, str]
    ) -> AdapterVersion:
        """Register a published adapter as a candidate of ``alias``.

        The same digest again gives the version that is already there, whatever its stage.
        """
        with write(self._engine) as connection:
            owner = moving.require_alias(connection, alias)
            known = moving.newest_first(connection, alias)
            for version in known:
                if version.digest == artifact.digest:
                    return version
            added = AdapterVersion(
                alias=alias,
                version=known[0].version + 1 if known else 1,
                digest=artifact.digest,
                path=artifact.path,
                base=owner.base,
                rank=artifact.rank,
                stage=Stage.CANDIDATE,
                created_at=at,
                changed_at=at,
                lineage=dict(lineage),
            )
            moving.insert(connection, added)
            return added

    def gate(self, alias: str, version: int, *, verdict_id: str, at: datetime) -> AdapterVersion:
        """The verdict says promote: engines may load it now. StaleStage unless a candidate."""
        with write(self._engine) as connection:
            moving.require_alias(connection, alias)
            candidate = moving.require_version(connection, alias, version)
            why = moving.Grounds(at, verdict_id=verdict_id)
            return moving.move(connection, candidate, Stage.GATED, why)

    def reject(
        self,
        alias: str,
        version: int,
        *,
        at: datetime,
        verdict_id: str | None = None,
        reason: str | None = None,
    ) -> AdapterVersion:
        """It will never answer (again). StaleStage when it is live, retired or rejected."""
        with write(self._engine) as connection:
            moving.require_alias(connection, alias)
            old = moving.require_version(connection, alias, version)
            why = moving.Grounds(at, verdict_id, reason)
            return moving.move(connection, old, Stage.REJECTED, why)

    def promote(self, alias: str, version: int, *, at: datetime) -> Promotion:
        """Make a gated version answer the alias and retire the one before it, at once.

        NotResident unless every healthy engine of the base has it loaded and probed;
        StaleStage when it is not gated. In both cases nothing changed.
        """
        try:
            with write(self._engine) as connection:
                owner = moving.require_alias(connection, alias)
                candidate = moving.require_version(connection, alias, version)
                if candidate.stage is Stage.RETIRED:
                    raise StaleStage(f"{candidate.label} is retired: only a rollback revives it")
                return _flip(connection, owner, candidate, moving.Grounds(at))
        except IntegrityError as error:
            raise StaleStage(f"another version of {alias} went live meanwhile") from error

    def rollback(self, alias: str, *, reason: str, at: datetime) -> Promotion:
        """Give the alias back to the live version's predecessor, or to the base if it had none.

        Nothing is loaded: the predecessor stayed resident while its successor was live.
        StaleStage when nothing is live; NotResident when an engine lost the predecessor.
        """
        why = moving.Grounds(at, reason=reason)
        with write(self._engine) as connection:
            owner = moving.require_alias(connection, alias)
            current = moving.live_of(connection, alias)
            if current is None:
                raise StaleStage(f"{alias} has no live version to roll back from")
            if current.predecessor is None:
                retired = moving.move(connection, current, Stage.RETIRED, why)
                return Promotion(alias=alias, live=None, previous=retired, at=at)
            before = moving.require_version(connection, alias, current.predecessor)
            return _flip(connection, owner, before, why)

    def live(self, alias: str) -> AdapterVersion | None:
        """The version that answers; None when the base does."""
        with read(self._engine) as connection:
            moving.require_alias(connection, alias)
            return moving.live_of(connection, alias)

    def get(self, alias: str, version: int) -> AdapterVersion:
        """One version; UnknownVersion when there is none."""
        with read(self._engine) as connection:
            return moving.require_version(connection, alias, version)

    def versions(self, alias: str) -> tuple[AdapterVersion, ...]:
        """All versions of an alias, newest first."""
        with read(self._engine) as connection:
            moving.require_alias(connection, alias)
            return moving.newest_first(connection, alias)

    def moves(self, alias: str) -> tuple[Move, ...]:
        """The audit log of an alias, oldest first."""
        with read(self._engine) as connection:
            return moving.audit_of(connection, alias)

    def wanted(
        self, served_base: str, *, now: datetime, drain_s: float
    ) -> tuple[AdapterVersion, ...]:
        """What engines of ``served_base`` shall have loaded, most important first.

        Live versions, their predecessors, canaries, gated ones, and those that answered
        within the last ``drain_s`` seconds.
        """
        with read(self._engine) as connection:
            versions = moving.versions_on(connection, served_base)
        return wanting.wanted(versions, now=now, drain_s=drain_s)

    def report(self, report: EngineReport) -> None:
        """Keep an engine's latest word. A mere heartbeat wakes no reader."""
        with write(self._engine) as connection:
            reporting.save_report(connection, report)

    def engines(
        self, *, now: datetime, stale_after_s: float = STALE_AFTER_S
    ) -> tuple[EngineReport, ...]:
        """The engines whose agents reported within ``stale_after_s``, by id."""
        with read(self._engine) as connection:
            known = reporting.reports(connection)
        return tuple(word for word in known if word.fresh(now=now, stale_after_s=stale_after_s))

    def snapshot(self, *, now: datetime, stale_after_s: float = STALE_AFTER_S) -> RoutingSnapshot:
        """What the gateway routes by. Read it again when ``data_version`` moves, and every
        second or so: an agent that falls silent moves nothing."""
        with read(self._engine) as connection:
            return reporting.snapshot(connection, now=now, stale_after_s=stale_after_s)

    def data_version(self) -> int:
        """Grows when the answer of ``snapshot`` or ``wanted`` may have changed.

        A few microseconds on SQLite while nobody writes: made to be asked every 20 ms.
        """
        return self._clock.version()


def _flip(
    connection: Connection, owner: Alias, successor: AdapterVersion, why: moving.Grounds
) -> Promotion:
    check_move(successor.label, successor.stage, Stage.LIVE)
    missing = wanting.lacking(
        successor.served_name, owner.served_base, reporting.reports(connection), now=why.at
    )
    if missing:
        raise NotResident(f"{successor.label} cannot go live: {missing}")
    current = moving.live_of(connection, owner.name)
    retired = moving.move(connection, current, Stage.RETIRED, why) if current else None
    # A rollback keeps what came before the version it returns to; a promotion moves on.
    came_back = successor.stage is Stage.RETIRED
    predecessor = successor.predecessor if came_back else (current.version if current else None)
    live = moving.move(connection, successor, Stage.LIVE, why, predecessor=predecessor)
    return Promotion(alias=owner.name, live=live, previous=retired, at=why.at)
