"""Between the registry's rows and its domain: the only place that knows both."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from serving.registry.adapter import DIGEST_IN_NAME, AdapterVersion, Alias, Move, served_name
from serving.registry.fleet import EngineReport, EngineState, Servable
from serving.registry.stage import Stage

Row = sa.Row[Any]


def alias_from(row: Row) -> Alias:
    """The alias a row of ``aliases`` holds."""
    return Alias(name=row.name, base=row.base, served_base=row.served_base)


def version_from(row: Row) -> AdapterVersion:
    """The version a row of ``adapter_versions`` holds."""
    return AdapterVersion(
        alias=row.alias,
        version=row.version,
        digest=row.digest,
        path=Path(row.path),
        base=row.base,
        rank=row.rank,
        stage=Stage(row.stage),
        created_at=row.created_at,
        changed_at=row.changed_at,
        lineage=row.lineage,
        verdict_id=row.verdict_id,
        reason=row.reason,
        predecessor=row.predecessor,
        answered_until=row.answered_until,
    )


def servable_from(row: sa.Row[Any, Any, Any, Any, Any]) -> Servable:
    """The version of which a row holds the columns that routing needs."""
    return Servable(
        alias=row.alias,
        version=row.version,
        digest=row.digest,
        served_name=served_name(row.alias, row.digest),
        stage=Stage(row.stage),
        created_at=row.created_at,
    )


def served_name_of(
    alias: sa.ColumnElement[str], digest: sa.ColumnElement[str]
) -> sa.ColumnElement[str]:
    """``serving.registry.served_name``, of rows."""
    return alias + "--" + sa.func.substr(digest, 1, DIGEST_IN_NAME)


def version_values(version: AdapterVersion) -> dict[str, Any]:
    """The columns of ``adapter_versions`` for a version."""
    return {
        "alias": version.alias,
        "version": version.version,
        "digest": version.digest,
        "path": str(version.path),
        "base": version.base,
        "rank": version.rank,
        "stage": version.stage.value,
        "created_at": version.created_at,
        "changed_at": version.changed_at,
        "lineage": dict(version.lineage),
        "verdict_id": version.verdict_id,
        "reason": version.reason,
        "predecessor": version.predecessor,
        "answered_until": version.answered_until,
    }


def move_from(row: Row) -> Move:
    """The audit line a row of ``moves`` holds."""
    return Move(
        alias=row.alias,
        version=row.version,
        old=Stage(row.old) if row.old else None,
        new=Stage(row.new),
        at=row.at,
        verdict_id=row.verdict_id,
        reason=row.reason,
    )


def report_from(row: Row) -> EngineReport:
    """The report a row of ``engines`` holds."""
    return EngineReport(
        engine_id=row.engine_id,
        url=row.url,
        base=row.base,
        state=EngineState(row.state),
        resident=frozenset(row.resident),
        at=row.at,
        failed=row.failed,
    )


def engine_values(report: EngineReport) -> dict[str, Any]:
    """The columns of ``engines`` for a report."""
    return {
        "engine_id": report.engine_id,
        "url": report.url,
        "base": report.base,
        "state": report.state.value,
        "resident": sorted(report.resident),
        "failed": dict(report.failed),
        "at": report.at,
    }
