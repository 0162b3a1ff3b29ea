import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from gateway.errors import Unauthorized
from gateway.keys import KeyStore, Limits
from gateway.limits import SharedLimits
from gateway.limits.window import DAY
from gateway.state import State
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry

AT = datetime(2026, 1, 1, tzinfo=UTC)
SLOTS = 64
"""Of a new table."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def state(url: str) -> Iterator[State]:
    state = State.open(url, now=lambda: AT)
    yield state
    state.close()


@pytest.fixture
def keys(url: str) -> Iterator[KeyStore]:
    """Another process's."""
    database = open_database(url)
    yield KeyStore(database)
    database.dispose()


def bearer(secret: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {secret}".encode()}


def test_a_key_made_elsewhere_opens_at_once(state: State, keys: KeyStore) -> None:
    key, secret = keys.create("ci", tenant="acme", at=AT)

    assert state.key(bearer(secret)) == key


async def test_a_silent_engine_is_noticed_without_reading_all_keys_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [AT]
    registry = Registry.open(url)
    registry.report(EngineReport("e0", "http://e0", "base", EngineState.READY, frozenset(), AT))
    state = State.open(url, now=lambda: clock[0])
    before = state.snapshot.engines
    reads = count()
    monkeypatch.setattr(state.keys, "active", lambda: {str(next(reads)): None})
    following = asyncio.create_task(state.follow(poll_s=0.001, refresh_s=0.001))

    clock[0] += timedelta(hours=1)
    async with asyncio.timeout(30):
        while state.snapshot.engines:
            await asyncio.sleep(0)
    following.cancel()
    state.close()
    registry.close()

    assert [engine.engine_id for engine in before] == ["e0"]
    assert next(reads) == 0


def test_unknown_keys_do_not_keep_the_database_busy(state: State, keys: KeyStore) -> None:
    with pytest.raises(Unauthorized):
        state.key(bearer("sk-nobody"))
    _, secret = keys.create("ci", tenant="acme", at=AT)
    state._asked += 3600

    with pytest.raises(Unauthorized):
        state.key(bearer(secret))


async def test_a_revoked_key_stops_opening_at_the_next_poll(state: State, keys: KeyStore) -> None:
    key, secret = keys.create("ci", tenant="acme", at=AT)
    opened = state.key(bearer(secret))
    following = asyncio.create_task(state.follow(poll_s=0.001, refresh_s=3600))

    keys.revoke(key.id, at=AT)
    async with asyncio.timeout(30):
        while True:
            try:
                state.key(bearer(secret))
            except Unauthorized:
                break
            await asyncio.sleep(0)

    assert opened == key
    assert state.following
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert not state.following


async def test_slots_of_revoked_keys_are_taken_over(
    state: State, keys: KeyStore, tmp_path: Path
) -> None:
    clock = count(0, 2 * DAY)
    limits = SharedLimits(tmp_path / "limits", now=lambda: next(clock))
    state.tell(limits.keep)
    table = tmp_path / "limits" / "table"
    size = table.stat().st_size

    for name in ("first", "second", "third"):
        made = [
            keys.create(name, tenant="acme", at=AT, limits=Limits(requests_per_minute=1))
            for _ in range(SLOTS)
        ]
        state.refresh()
        for key, _ in made:
            limits.admit(key, tokens=0, cost=0.0).settle(0, 0.0)
            keys.revoke(key.id, at=AT)
        state.refresh()

    assert table.stat().st_size == size
    await limits.close()
