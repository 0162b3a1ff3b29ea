"""Engines' reports in the database, and the gateway's view of everything."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from serving.registry.clock import read_clock, touch
from serving.registry.fleet import EngineReport, LiveAdapter, Route, RoutingSnapshot
from serving.registry.rows import alias_from, engine_values, report_from, version_from
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
    version = read_clock(connection)
    live = {
        row.alias: version_from(row)
        for row in connection.execute(
            sa.select(adapter_versions).where(adapter_versions.c.stage == Stage.LIVE.value)
        )
    }
    routes: dict[str, Route] = {}
    for row in connection.execute(sa.select(aliases).order_by(aliases.c.name)):
        alias, answering = alias_from(row), live.get(row.name)
        adapter = (
            LiveAdapter(answering.served_name, answering.digest, answering.version)
            if answering
            else None
        )
        routes[alias.name] = Route(alias.name, alias.base, alias.served_base, adapter)
    fresh = tuple(
        report
        for report in reports(connection)
        if report.fresh(now=now, stale_after_s=stale_after_s)
    )
    return RoutingSnapshot(data_version=version, taken_at=now, routes=routes, engines=fresh)
