"""Which adapters engines shall hold, and which of them an engine still lacks. All pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from serving.registry.adapter import AdapterVersion
from serving.registry.fleet import EngineReport, EngineState
from serving.registry.stage import Stage

_ALWAYS = {Stage.LIVE: 0, Stage.CANARY: 2, Stage.GATED: 3}
_PREDECESSOR = 1
_DRAINING = 4


def wanted(
    versions: Iterable[AdapterVersion], *, now: datetime, drain_s: float
) -> tuple[AdapterVersion, ...]:
    """The versions to keep loaded, most important first.

    A live version's predecessor stays, so that rollback needs no load. What stopped
    answering stays for ``drain_s``: a stream that began with it must end with it.
    """
    known = tuple(versions)
    before = {
        (version.alias, version.predecessor) for version in known if version.stage is Stage.LIVE
    }
    drained = now - timedelta(seconds=drain_s)
    ranked: list[tuple[int, str, int, AdapterVersion]] = []
    for version in known:
        if version.stage in _ALWAYS:
            rank = _ALWAYS[version.stage]
        elif (version.alias, version.version) in before and version.stage is Stage.RETIRED:
            rank = _PREDECESSOR
        elif version.answered_until is not None and version.answered_until > drained:
            rank = _DRAINING
        else:
            continue
        ranked.append((rank, version.alias, -version.version, version))
    return tuple(entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1]))


def lacking(
    served_name: str, served_base: str, reports: Iterable[EngineReport], *, now: datetime
) -> str | None:
    """Why ``served_name`` cannot answer on every healthy engine of its base; None if it can.

    An engine that is starting does not count: it is routed to only once it is ready, and
    then for what it holds.
    """
    ready = [
        report
        for report in reports
        if report.base == served_base
        and report.state is EngineState.READY
        and report.fresh(now=now)
    ]
    if not ready:
        return f"no engine of {served_base} is ready"
    for report in ready:
        if served_name in report.failed:
            return f"it failed on engine {report.engine_id}: {report.failed[served_name]}"
        if served_name not in report.resident:
            return f"engine {report.engine_id} has not loaded {served_name} yet"
    return None
