"""Engines' reports in the database, and the gateway's view of everything."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from serving.registry.clock import read_clock, touch
from serving.registry.fleet import EngineReport, Route, RoutingSnapshot, Servable
from serving.registry.rows import (
    alias_from,
    engine_values,
    report_from,
    servable_from,
    served_name_of,
)
from serving.registry.stage import Stage
from serving.registry.tables import adapter_versions, aliases, engines


def save_report(connection: Connection, report: EngineReport) -> None:
    """Replace an engine's word; readers are told only when more than the time changed."""
    mine = engines.c.engine_id == report.engine_id
    row = connection.execute(sa.select(engines).where(mine)).one_or_none()
    values = engine_values(report)
    if row is None:
        connection.execute(engines.insert().values(**values))
    else:
        connection.execute(engines.update().where(mine).values(**values))
    if row is None or not report.same_routing(report_from(row)):
        touch(connection)


def reports(connection: Connection) -> tuple[EngineReport, ...]:
    """Every engine's latest word, by id, however old."""
    rows = connection.execute(sa.select(engines).order_by(engines.c.engine_id))
    return tuple(report_from(row) for row in rows)


def snapshot(connection: Connection, *, now: datetime, stale_after_s: float) -> RoutingSnapshot:
    """Aliases with who answers them, and the engines, as of one transaction."""
    clock = read_clock(connection)
    fresh = tuple(
        report
        for report in reports(connection)
        if report.fresh(now=now, stale_after_s=stale_after_s)
    )
    versions = _servable(connection, {name for report in fresh for name in report.resident})
    live = {version.alias: version for version in versions if version.stage is Stage.LIVE}
    declared = connection.execute(sa.select(aliases).order_by(aliases.c.name))
    routes = {
        alias.name: Route(alias.name, alias.base, alias.served_base, live.get(alias.name))
        for alias in map(alias_from, declared)
    }
    return RoutingSnapshot(clock, now, routes, fresh, versions)


def _servable(connection: Connection, resident: set[str]) -> tuple[Servable, ...]:
    """Versions that may be asked for: of the retired, which only grow in number, the resident."""
    columns = adapter_versions.c
    held = served_name_of(columns.alias, columns.digest).in_(resident)
    rows = connection.execute(
        sa.select(columns.alias, columns.version, columns.digest, columns.stage, columns.created_at)
        .where(
            columns.stage.in_([Stage.LIVE.value, Stage.CANARY.value, Stage.GATED.value])
            | ((columns.stage == Stage.RETIRED.value) & held)
        )
        .order_by(columns.alias, columns.version.desc())
    )
    return tuple(servable_from(row) for row in rows)
