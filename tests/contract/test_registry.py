"""What every registry promises, whatever database it is kept in."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.artifact import Artifact
from serving.registry import (
    EngineReport,
    EngineState,
    NotResident,
    Registry,
    Stage,
    StaleStage,
    UnknownAlias,
    UnknownVersion,
)

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
ALIAS, BASE = "helpdesk", "tiny"


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:///{tmp_path}/state/{request.param}.db"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    opened = Registry.open(url)
    opened.declare(ALIAS, "/models/tiny", BASE, NOW)
    yield opened
    opened.close()


def artifact(number: int) -> Artifact:
    digest = f"{number:x}".rjust(12, "a").ljust(64, "0")
    return Artifact(digest=digest, path=Path(f"/store/{digest}"), rank=8, base="tiny")


def add(registry: Registry, number: int, *, gated: bool = True) -> str:
    """Version ``number``, gated; its served name."""
    added = registry.add(ALIAS, artifact(number), at=NOW, lineage={"dataset": f"d{number}"})
    if gated:
        registry.gate(ALIAS, added.version, verdict_id=f"verdict-{number}", at=NOW)
    return added.served_name


def say(
    registry: Registry,
    *resident: str,
    engine: str = "e0",
    state: EngineState = EngineState.READY,
    at: datetime = NOW,
    failed: dict[str, str] | None = None,
) -> None:
    registry.report(
        EngineReport(
            engine_id=engine,
            url="http://127.0.0.1:8001",
            base=BASE,
            state=state,
            resident=frozenset(resident),
            at=at,
            failed=failed or {},
        )
    )


def live_version(registry: Registry) -> int | None:
    live = registry.live(ALIAS)
    return live.version if live else None


def test_declaring_again_changes_nothing(registry: Registry) -> None:
    before = registry.data_version()

    registry.declare(ALIAS, "/models/tiny", BASE, NOW)

    assert [alias.name for alias in registry.aliases()] == [ALIAS]
    assert registry.data_version() == before


def test_an_alias_with_adapters_keeps_its_base(registry: Registry) -> None:
    registry.declare(ALIAS, "/models/other", "other", NOW)
    registry.declare(ALIAS, "/models/tiny", BASE, NOW)
    add(registry, 1)

    with pytest.raises(StaleStage, match="declare a new alias"):
        registry.declare(ALIAS, "/models/other", "other", NOW)


def test_versions_count_from_one_and_equal_digests_are_one_version(registry: Registry) -> None:
    first = registry.add(ALIAS, artifact(1), at=NOW, lineage={"dataset": "d"})
    second = registry.add(ALIAS, artifact(2), at=NOW, lineage={})
    again = registry.add(ALIAS, artifact(1), at=NOW + timedelta(days=1), lineage={})

    assert (first.version, second.version) == (1, 2)
    assert again == first
    assert first.stage is Stage.CANDIDATE
    assert first.served_name == f"{ALIAS}--{artifact(1).digest[:12]}"
    assert first.lineage == {"dataset": "d"}
    assert first.created_at == NOW


def test_what_is_not_there_is_named(registry: Registry) -> None:
    with pytest.raises(UnknownAlias, match="nobody"):
        registry.versions("nobody")
    with pytest.raises(UnknownAlias):
        registry.add("nobody", artifact(1), at=NOW, lineage={})
    with pytest.raises(UnknownVersion, match="version 7"):
        registry.get(ALIAS, 7)


def test_naive_times_are_refused(registry: Registry) -> None:
    with pytest.raises(Exception, match="time zone"):
        registry.add(ALIAS, artifact(1), at=datetime(2026, 1, 1), lineage={})  # noqa: DTZ001


def test_a_gated_version_goes_live_and_the_one_before_it_retires(registry: Registry) -> None:
    one, two = add(registry, 1), add(registry, 2)
    say(registry, one, two)

    first = registry.promote(ALIAS, 1, at=NOW)
    second = registry.promote(ALIAS, 2, at=NOW)

    assert first.previous is None
    assert second.live is not None
    assert second.previous is not None
    assert (second.live.version, second.live.predecessor) == (2, 1)
    assert (second.previous.version, second.previous.stage) == (1, Stage.RETIRED)
    assert live_version(registry) == 2


def test_a_candidate_without_a_verdict_cannot_go_live(registry: Registry) -> None:
    name = add(registry, 1, gated=False)
    say(registry, name)

    with pytest.raises(StaleStage):
        registry.promote(ALIAS, 1, at=NOW)

    assert live_version(registry) is None


def test_a_rejected_version_is_out_for_good(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name)
    registry.reject(ALIAS, 1, reason="the canary fell", at=NOW)

    with pytest.raises(StaleStage):
        registry.promote(ALIAS, 1, at=NOW)
    with pytest.raises(StaleStage):
        registry.gate(ALIAS, 1, verdict_id="v", at=NOW)


def test_a_live_version_cannot_be_rejected_under_the_clients(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name)
    registry.promote(ALIAS, 1, at=NOW)

    with pytest.raises(StaleStage):
        registry.reject(ALIAS, 1, reason="r", at=NOW)


def test_without_an_engine_nothing_goes_live(registry: Registry) -> None:
    add(registry, 1)

    with pytest.raises(NotResident, match="no engine"):
        registry.promote(ALIAS, 1, at=NOW)


def test_an_alias_flips_when_every_healthy_engine_has_the_adapter(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name, engine="e0")
    say(registry, engine="e1")

    with pytest.raises(NotResident, match="e1 has not loaded"):
        registry.promote(ALIAS, 1, at=NOW)
    say(registry, name, engine="e1")
    registry.promote(ALIAS, 1, at=NOW)

    assert live_version(registry) == 1


def test_an_engine_that_fell_silent_or_is_not_ready_is_not_waited_for(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name, engine="e0")
    say(registry, engine="e1", at=NOW - timedelta(minutes=1))
    say(registry, engine="e2", state=EngineState.STARTING)

    registry.promote(ALIAS, 1, at=NOW)

    assert live_version(registry) == 1


def test_an_adapter_that_failed_its_probe_says_why_it_cannot_go_live(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, failed={name: "it answers as the base does"})

    with pytest.raises(NotResident, match="answers as the base"):
        registry.promote(ALIAS, 1, at=NOW)


def test_a_rollback_returns_to_the_predecessor_and_then_to_the_base(registry: Registry) -> None:
    one, two = add(registry, 1), add(registry, 2)
    say(registry, one, two)
    registry.promote(ALIAS, 1, at=NOW)
    registry.promote(ALIAS, 2, at=NOW)

    back = registry.rollback(ALIAS, reason="worse", at=NOW)
    after = live_version(registry)
    further = registry.rollback(ALIAS, reason="worse still", at=NOW)

    assert back.live is not None
    assert (back.live.version, after) == (1, 1)
    assert further.live is None
    assert live_version(registry) is None
    with pytest.raises(StaleStage, match="no live version"):
        registry.rollback(ALIAS, reason="again", at=NOW)


def test_a_retired_version_comes_back_by_rollback_only(registry: Registry) -> None:
    one, two = add(registry, 1), add(registry, 2)
    say(registry, one, two)
    registry.promote(ALIAS, 1, at=NOW)
    registry.promote(ALIAS, 2, at=NOW)

    with pytest.raises(StaleStage, match="rollback"):
        registry.promote(ALIAS, 1, at=NOW)


def test_every_move_is_in_the_audit_log(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name)
    registry.promote(ALIAS, 1, at=NOW)
    registry.rollback(ALIAS, reason="worse", at=NOW)

    moves = registry.moves(ALIAS)

    assert [(move.old, move.new) for move in moves] == [
        (None, Stage.CANDIDATE),
        (Stage.CANDIDATE, Stage.GATED),
        (Stage.GATED, Stage.LIVE),
        (Stage.LIVE, Stage.RETIRED),
    ]
    assert moves[1].verdict_id == "verdict-1"
    assert moves[3].reason == "worse"


def test_engines_hold_what_answers_what_waits_and_what_drains(registry: Registry) -> None:
    names = [add(registry, number) for number in (1, 2, 3)]
    add(registry, 4, gated=False)
    say(registry, *names)
    for number in (1, 2, 3):
        registry.promote(ALIAS, number, at=NOW)
    add(registry, 5)
    registry.reject(ALIAS, 5, reason="no", at=NOW)
    waiting = add(registry, 6)

    soon = registry.wanted(BASE, now=NOW + timedelta(seconds=5), drain_s=30)
    late = registry.wanted(BASE, now=NOW + timedelta(seconds=60), drain_s=30)

    assert [version.version for version in soon] == [3, 2, 6, 1]
    assert [version.version for version in late] == [3, 2, 6]
    assert late[-1].served_name == waiting
    assert registry.wanted("another base", now=NOW, drain_s=30) == ()


def test_the_snapshot_says_who_answers_and_where(registry: Registry) -> None:
    registry.declare("plain", "/models/tiny", BASE, NOW)
    name = add(registry, 1)
    say(registry, name)
    say(registry, engine="e1")
    before = registry.snapshot(now=NOW)
    say(registry, name, engine="e1")
    registry.promote(ALIAS, 1, at=NOW)
    say(registry, engine="e1", state=EngineState.STARTING)

    snapshot = registry.snapshot(now=NOW)

    assert before.routes[ALIAS].target == BASE
    route = snapshot.routes[ALIAS]
    assert route.target == name
    assert route.adapter is not None
    assert (route.adapter.version, route.adapter.digest) == (1, artifact(1).digest)
    assert [engine.engine_id for engine in snapshot.serving(route)] == ["e0"]
    assert snapshot.routes["plain"].target == BASE


def test_an_engine_without_the_live_adapter_is_never_routed_to(registry: Registry) -> None:
    name = add(registry, 1)
    say(registry, name)
    registry.promote(ALIAS, 1, at=NOW)
    say(registry)

    snapshot = registry.snapshot(now=NOW)

    assert snapshot.serving(snapshot.routes[ALIAS]) == ()


def test_a_version_can_be_named_once_it_passed_its_gate_while_an_engine_may_hold_it(
    registry: Registry,
) -> None:
    names = [add(registry, number) for number in (1, 2, 3, 4)]
    candidate, rejected = add(registry, 5, gated=False), add(registry, 6)
    registry.reject(ALIAS, 6, reason="no", at=NOW)
    say(registry, *names)
    for number in (1, 2, 3):
        registry.promote(ALIAS, number, at=NOW)
    # The oldest is unloaded. What never passed stays unnamed even if an engine claimed to hold it.
    say(registry, *names[1:], candidate, rejected)

    snapshot = registry.snapshot(now=NOW)

    assert [version.version for version in snapshot.versions] == [4, 3, 2]
    assert {name for name in snapshot.names if "@" in name} == {
        f"{ALIAS}@v{number}" for number in (4, 3, 2)
    }
    retired = snapshot.names[f"{ALIAS}@v2"]
    tuned = snapshot.names[f"ft:{BASE}:ratchet:{ALIAS}:{artifact(2).digest[:12]}"]
    assert retired == tuned
    assert retired.target == names[1]
    assert [engine.engine_id for engine in snapshot.serving(retired)] == ["e0"]
    assert snapshot.names[ALIAS].target == names[2]
    assert snapshot.names[BASE].target == BASE


def test_with_several_engines_an_alias_flips_on_all_or_on_none(registry: Registry) -> None:
    name = add(registry, 1)
    replicas = [f"engine-tiny-{number}" for number in range(3)]
    for replica in replicas[:2]:
        say(registry, name, engine=replica)
    say(registry, engine=replicas[2])

    with pytest.raises(NotResident, match="engine-tiny-2 has not loaded"):
        registry.promote(ALIAS, 1, at=NOW)
    before = live_version(registry)
    say(registry, name, engine=replicas[2])
    registry.promote(ALIAS, 1, at=NOW)

    snapshot = registry.snapshot(now=NOW)
    serving = snapshot.serving(snapshot.routes[ALIAS])
    assert (before, live_version(registry)) == (None, 1)
    assert [engine.engine_id for engine in serving] == replicas


def test_one_replica_that_fails_the_adapter_keeps_the_alias_where_it_is(
    registry: Registry,
) -> None:
    name = add(registry, 1)
    say(registry, name, engine="engine-tiny-0")
    say(registry, engine="engine-tiny-1", failed={name: "answers as the base does"})

    with pytest.raises(NotResident, match="failed on engine engine-tiny-1: answers as the base"):
        registry.promote(ALIAS, 1, at=NOW)


def test_an_engine_whose_agent_fell_silent_is_not_in_the_snapshot(registry: Registry) -> None:
    say(registry)

    assert len(registry.snapshot(now=NOW + timedelta(seconds=5)).engines) == 1
    assert registry.snapshot(now=NOW + timedelta(minutes=5)).engines == ()


def test_readers_are_woken_by_changes_and_not_by_heartbeats(registry: Registry, url: str) -> None:
    reader = Registry.open(url)
    name = add(registry, 1)
    say(registry)
    quiet = reader.data_version()

    say(registry, at=NOW + timedelta(seconds=2))
    after_heartbeat = reader.data_version()
    say(registry, name, at=NOW + timedelta(seconds=4))
    after_load = reader.data_version()
    registry.promote(ALIAS, 1, at=NOW + timedelta(seconds=5))
    after_flip = reader.data_version()
    reader.close()

    assert quiet == after_heartbeat < after_load < after_flip


def test_of_two_that_promote_at_once_both_end_in_order(registry: Registry, url: str) -> None:
    names = [add(registry, number) for number in range(1, 9)]
    say(registry, *names)
    refused: list[Exception] = []

    def promote(number: int) -> None:
        mine = Registry.open(url)
        try:
            mine.promote(ALIAS, number, at=NOW)
        except StaleStage as error:
            refused.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stages = [version.stage for version in registry.versions(ALIAS)]
    assert stages.count(Stage.LIVE) == 1
    assert stages.count(Stage.RETIRED) == 7 - len(refused)


def test_many_processes_may_open_an_empty_database_at_once(url: str) -> None:
    opened: list[Registry] = []
    threads = [threading.Thread(target=lambda: opened.append(Registry.open(url))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 8
    for registry in opened:
        registry.close()
