"""From a verdict to a moved alias, begun again after a death at every point in between."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from learner.errors import SwapError
from learner.jobs import LeaseStore, Phase, Turn, TurnState, TurnStore
from learner.jobs.work import Work
from learner.service import ATTEMPTS, Service
from learner.swap import conclude
from serving.artifact import Artifact
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry, Stage

ALIAS = "helpdesk"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class State:
    """A judged turn, its candidate, and the engine that would serve it."""

    registry: Registry
    turns: TurnStore
    leases: LeaseStore

    def judged(self, decision: str = "promote", *, attempt: int = 1) -> Turn:
        artifact = Artifact("a" * 64, Path("/adapters/a"), 8, "base")
        version = self.registry.add(ALIAS, artifact, at=now(), lineage={})
        turn = Turn(
            "t1",
            ALIAS,
            TurnState.RUNNING,
            Phase.EVALUATE,
            "test",
            now(),
            now(),
            now(),
            attempt=attempt,
            version=version.version,
            verdict={"decision": decision, "reason": "r"},
        )
        self.turns.add(turn)
        return turn

    def report(self, *resident: str, failed: dict[str, str] | None = None) -> None:
        self.registry.report(
            EngineReport(
                "e0",
                "http://e0",
                "base",
                EngineState.READY,
                frozenset(resident),
                now(),
                failed or {},
            )
        )

    async def conclude(self, turn: Turn) -> None:
        await conclude(Work(turn, self.turns, now=now), self.registry, now=now)

    def stage(self) -> Stage:
        return self.registry.get(ALIAS, 1).stage

    def ended(self) -> TurnState:
        turn = self.turns.get("t1")
        assert turn is not None
        return turn.state


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    registry = Registry.open(url)
    registry.declare(ALIAS, "base", "base", now())
    database = open_database(url)
    yield State(registry, TurnStore(database), LeaseStore(database))
    registry.close()
    database.dispose()


NAME = f"{ALIAS}--{'a' * 12}"


@pytest.mark.parametrize("died_after", ["verdict", "gate", "promote"])
async def test_a_promotion_is_finished_wherever_it_was_broken_off(
    state: State, died_after: str
) -> None:
    turn = state.judged()
    state.report(NAME)
    if died_after != "verdict":
        state.registry.gate(ALIAS, 1, verdict_id="t1", at=now())
    if died_after == "promote":
        state.registry.promote(ALIAS, 1, at=now())

    await state.conclude(turn)

    assert (state.stage(), state.ended()) == (Stage.LIVE, TurnState.PROMOTED)


async def test_the_alias_waits_until_the_engine_holds_the_adapter(state: State) -> None:
    turn = state.judged()
    state.report()
    work = asyncio.create_task(state.conclude(turn))
    await asyncio.sleep(0.3)
    before = state.registry.live(ALIAS)

    state.report(NAME)
    await asyncio.wait_for(work, 10)

    assert before is None
    assert state.stage() is Stage.LIVE


async def test_an_adapter_that_an_engine_cannot_serve_is_rejected(state: State) -> None:
    turn = state.judged()
    state.report(failed={NAME: "it answers as the base does"})

    with pytest.raises(SwapError, match="answers as the base"):
        await state.conclude(turn)

    assert state.stage() is Stage.REJECTED
    assert state.registry.live(ALIAS) is None


@pytest.mark.parametrize("decision", ["reject", "inconclusive"])
async def test_without_a_promotion_the_candidate_is_rejected_once(
    state: State, decision: str
) -> None:
    turn = state.judged(decision)
    state.registry.reject(ALIAS, 1, verdict_id="t1", at=now())  # as a dead learner left it

    await state.conclude(turn)

    assert state.stage() is Stage.REJECTED
    assert state.ended() == TurnState(
        {"reject": "rejected", "inconclusive": "inconclusive"}[decision]
    )


class Recording:
    """A cycle that only notes which turns it was given."""

    def __init__(self) -> None:
        self.given: list[Turn] = []

    async def run(self, work: Work, _: Any) -> None:
        self.given.append(work.turn)


def service(state: State, cycle: Recording, holder: str = "me") -> Service:
    policies: Any = {ALIAS: None}
    log: Any = None
    doing: Any = cycle
    return Service(log, state.turns, state.leases, doing, policies, holder=holder, now=now)


async def test_a_turn_whose_learner_died_is_taken_up_by_the_next(state: State) -> None:
    left = replace(state.judged(), version=None, verdict=None)
    state.turns.save(left, expected=left)
    cycle = Recording()

    await service(state, cycle).tick()
    await asyncio.sleep(0)

    assert [turn.attempt for turn in cycle.given] == [2]


async def test_a_turn_that_killed_too_many_learners_is_failed(state: State) -> None:
    left = replace(state.judged(attempt=ATTEMPTS), version=None, verdict=None)
    state.turns.save(left, expected=left)

    found = service(state, Recording())._left_behind()

    assert found is None
    assert state.ended() is TurnState.FAILED


async def test_a_judged_turn_is_never_given_up(state: State) -> None:
    state.judged(attempt=ATTEMPTS)
    cycle = Recording()

    await service(state, cycle).tick()
    await asyncio.sleep(0)

    assert [turn.attempt for turn in cycle.given] == [ATTEMPTS + 1]


async def test_only_the_holder_of_the_lease_acts(state: State) -> None:
    state.judged()
    first, second = Recording(), Recording()
    await service(state, first, "one").tick()
    await service(state, second, "two").tick()
    await asyncio.sleep(0)

    assert (len(first.given), len(second.given)) == (1, 0)
