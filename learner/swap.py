"""From a durable verdict to a moved alias, or to a rejected candidate."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from learner.errors import SwapError
from learner.evaluation.gate import Decision
from learner.jobs import Phase, Turn, TurnState
from learner.jobs.work import Work
from serving.registry import AdapterVersion, NotResident, Registry, Stage

PATIENCE = timedelta(minutes=3)
"""How long the engines may take before the turn's history says so again."""
RETRY_S = 0.05

ENDS = {
    Decision.PROMOTE: TurnState.PROMOTED,
    Decision.REJECT: TurnState.REJECTED,
    Decision.INCONCLUSIVE: TurnState.INCONCLUSIVE,
}


async def conclude(work: Work, registry: Registry, *, now: Callable[[], datetime]) -> None:
    """Act on the turn's verdict and end it. Safe to repeat after a crash at any point.

    Raises SwapError when an engine cannot serve the candidate; it is rejected then.
    """
    turn = work.turn
    decision, candidate = _judged(turn, registry)
    if decision is Decision.PROMOTE:
        work.enter(Phase.SWAP)
        await _promote(work, registry, candidate, now=now)
    elif candidate.stage is Stage.CANDIDATE:
        registry.reject(
            candidate.alias,
            candidate.version,
            verdict_id=turn.id,
            reason=str((turn.verdict or {})["reason"]),
            at=now(),
        )
    work.end(ENDS[decision])


def _judged(turn: Turn, registry: Registry) -> tuple[Decision, AdapterVersion]:
    if turn.verdict is None or turn.version is None:
        raise ValueError(f"turn {turn.id} has no verdict")
    return Decision(turn.verdict["decision"]), registry.get(turn.alias, turn.version)


async def _promote(
    work: Work, registry: Registry, candidate: AdapterVersion, *, now: Callable[[], datetime]
) -> None:
    """Let every engine load and probe the candidate, then move the alias, all at once."""
    alias, version = candidate.alias, candidate.version
    if candidate.stage is Stage.CANDIDATE:
        registry.gate(alias, version, verdict_id=work.turn.id, at=now())
        work.say(f"{candidate.served_name} passed the gate; the engines load and probe it")
    told = now() + PATIENCE
    while registry.get(alias, version).stage is not Stage.LIVE:
        try:
            registry.promote(alias, version, at=now())
        except NotResident as missing:
            failed = _failure(registry, candidate, now())
            if failed:
                registry.reject(alias, version, reason=failed, at=now())
                raise SwapError(f"{candidate.served_name} cannot be served: {failed}") from missing
            if now() > told:
                # The engines' trouble is not the adapter's fault: it waits until they are well.
                work.say(f"still waiting: {missing}", level="warn")
                told = now() + PATIENCE
            await asyncio.sleep(RETRY_S)
    live = registry.get(alias, version)
    work.say(
        f"{alias} now answers with {live.served_name}",
        data={"adapter": live.served_name, "live_at": live.changed_at.isoformat()},
    )


def _failure(registry: Registry, candidate: AdapterVersion, at: datetime) -> str | None:
    """Why an engine refuses the candidate; None while none does."""
    for engine in registry.engines(now=at):
        if candidate.served_name in engine.failed:
            return f"{engine.engine_id}: {engine.failed[candidate.served_name]}"
    return None
