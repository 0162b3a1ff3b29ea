from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from learner.errors import IllegalMove
from learner.jobs import LeaseStore, Phase, Turn, TurnState, TurnStore
from serving.database import open_database
from tests.factories import NOW

TTL = timedelta(seconds=30)


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"{request.param}:///{tmp_path / 'state.db'}")
    yield engine
    engine.dispose()


def turn(name: str = "t1", *, alias: str = "helpdesk") -> Turn:
    return Turn(name, alias, TurnState.RUNNING, Phase.DATASET, "test", NOW, NOW, NOW)


def test_a_turn_is_kept_as_it_was_saved(database: Engine) -> None:
    store = TurnStore(database)
    begun = turn()
    store.add(begun)
    ended = replace(begun, dataset="d", version=3, verdict={"gain": 0.1}).to(
        TurnState.PROMOTED, at=NOW + TTL
    )

    store.save(ended, expected=begun)

    assert store.get("t1") == ended
    assert store.running() == ()
    assert store.learnt("helpdesk") == ended


def test_an_alias_has_one_running_turn(database: Engine) -> None:
    store = TurnStore(database)
    store.add(turn())

    with pytest.raises(IllegalMove):
        store.add(turn("t2"))
    store.add(turn("t3", alias="other"))

    assert len(store.running()) == 2


def test_an_ended_turn_goes_nowhere(database: Engine) -> None:
    ended = turn().to(TurnState.FAILED, at=NOW, error="broke")

    with pytest.raises(IllegalMove):
        ended.to(TurnState.PROMOTED, at=NOW)


def test_who_lost_a_turn_can_no_longer_write_it(database: Engine) -> None:
    store = TurnStore(database)
    mine = turn()
    store.add(mine)
    taken = replace(mine, attempt=2)
    store.save(taken, expected=mine)

    with pytest.raises(IllegalMove, match="taken over"):
        store.save(mine.to(TurnState.PROMOTED, at=NOW), expected=mine)

    assert store.get("t1") == taken


def test_history_is_read_in_order_and_from_where_one_left_off(database: Engine) -> None:
    store = TurnStore(database)
    store.add(turn())
    for word in ("one", "two", "three"):
        store.log(turn(), word, at=NOW, data={"word": word})

    history = store.history("t1")
    rest = store.history("t1", after=history[0]["seq"])

    assert [event["message"] for event in history] == ["one", "two", "three"]
    assert [event["data"]["word"] for event in rest] == ["two", "three"]


def test_a_lease_is_held_by_one_and_renewed(database: Engine) -> None:
    leases = LeaseStore(database)

    first = leases.acquire("learner", "a", ttl=TTL, now=NOW)
    other = leases.acquire("learner", "b", ttl=TTL, now=NOW + TTL / 2)
    renewed = leases.acquire("learner", "a", ttl=TTL, now=NOW + TTL / 2)
    still = leases.acquire("learner", "b", ttl=TTL, now=NOW + TTL)

    assert first is not None
    assert renewed is not None
    assert (other, still) == (None, None)
    assert first.token == renewed.token


def test_an_expired_or_released_lease_goes_to_the_next_with_a_higher_token(
    database: Engine,
) -> None:
    leases = LeaseStore(database)
    first = leases.acquire("learner", "a", ttl=TTL, now=NOW)
    assert first is not None

    second = leases.acquire("learner", "b", ttl=TTL, now=NOW + TTL)
    assert second is not None
    leases.release(first, now=NOW)  # no longer its own: nothing happens
    refused = leases.acquire("learner", "a", ttl=TTL, now=NOW + TTL)
    leases.release(second, now=NOW + TTL)
    third = leases.acquire("learner", "a", ttl=TTL, now=NOW + TTL)

    assert refused is None
    assert third is not None
    assert first.token < second.token < third.token
