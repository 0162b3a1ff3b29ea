"""The file that workers count in: growing, reused, damaged, and left in the middle of a store."""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from gateway.errors import LimitsUnusable, RateLimited, Unavailable
from gateway.keys import Budget, Key, Limits, Window
from gateway.limits import SharedLimits, open_limits
from gateway.limits.account import Account
from gateway.limits.table import (
    CELLS,
    MONEY_KEPT,
    RUNNING,
    TOKENS,
    TOKENS_KEPT,
    WINDOWS,
    WORKERS,
    Life,
    Table,
    Words,
    digest,
)
from gateway.limits.window import DAY, MINUTE

START = 1_800_000_000 * 10**9


class Clock:
    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> int:
        return self.at


class Killed(BaseException):
    """What ``kill -9`` is to a process, for one that goes on."""


class Mortal:
    """A slot's words, and a worker that is killed before one of its stores."""

    def __init__(self, words: Words, stores: int) -> None:
        self._words = words
        self._left = stores

    def __getitem__(self, place: int) -> int:
        return self._words[place]

    def __setitem__(self, place: int, value: int) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        self._words[place] = value


NONE = Limits()


def key(key_id: str = "k", limits: Limits = NONE, budgets: tuple[Budget, ...] = ()) -> Key:
    return Key(key_id, "helpdesk", "acme", limits=limits, budgets=budgets)


BUSY = key(
    limits=Limits(60, 600, 4),
    budgets=(Budget(Window.DAY, tokens=1000), Budget(Window.TOTAL, money=10.0)),
)


def account(table: Table, stores: int, worker: int) -> Account:
    number = table.claim(digest("k"), START)
    words = cast("Words", Mortal(table.words(number), stores))
    return Account(BUSY, words, stripe=table.stripe(number), worker=worker, now=lambda: START + DAY)


@pytest.mark.parametrize("stores", range(1, 40))
def test_a_worker_killed_between_any_two_stores_costs_a_call_at_most(
    tmp_path: Path, stores: int
) -> None:
    table = Table(tmp_path)
    words = table.words(table.claim(digest("k"), START))
    survivor = account(table, 1000, worker=1)
    kept = survivor.admit(50, 0.5)
    victim = account(table, stores, worker=0)
    calls = 0

    with suppress(Killed):
        while True:
            victim.admit(100, 1.0).settle(70, 0.75)
            calls += 1
    table.enlist(0)
    table.heal(0)
    running, held = words[RUNNING], (words[TOKENS_KEPT], words[MONEY_KEPT])
    kept.settle(50, 0.5)
    day, total = words[WINDOWS + 6 : WINDOWS + 9], words[WINDOWS + 12 : WINDOWS + 15]
    taken = (words[TOKENS] - START - DAY) * 600 // (60 * 10**9)
    table.close()

    assert (running, held) == (1, (50, 500_000_000))
    assert not any(words[CELLS:])
    assert calls * 70 <= day[1] - 50 <= (calls + 1) * 70
    assert calls * 0.75 <= total[2] / 10**9 - 0.5 <= (calls + 1) * 0.75
    assert calls * 70 <= taken - 50 <= calls * 70 + 100


@asynccontextmanager
async def opened(directory: Path, clock: Clock) -> AsyncIterator[SharedLimits]:
    limiter = SharedLimits(directory, now=clock)
    try:
        yield limiter
    finally:
        await limiter.close()


def call(limiter: SharedLimits, each: Key, cost: float = 0.0) -> None:
    """One request, from beginning to end."""
    limiter.admit(each, tokens=0, cost=cost).settle(0, cost)


async def test_keys_beyond_the_files_first_size_are_counted_by_all(tmp_path: Path) -> None:
    keys = [key(f"k{n}", Limits(requests_per_minute=2)) for n in range(300)]

    async with opened(tmp_path, Clock()) as one, opened(tmp_path, Clock()) as other:
        for each in keys:
            call(one, each)
        for each in reversed(keys):
            call(other, each)

        for each in keys:
            with pytest.raises(RateLimited, match="Limit 2, Used 2"):
                call(one, each)


async def test_slots_of_vanished_keys_are_taken_over_when_the_file_is_full(tmp_path: Path) -> None:
    clock, once = Clock(), Limits(requests_per_minute=1)
    gone = [key(f"gone{n}", once) for n in range(60)]
    kept = [key(f"kept{n}", budgets=(Budget(Window.TOTAL, money=1.0),)) for n in range(4)]
    new = [key(f"new{n}", once) for n in range(60)]

    async with opened(tmp_path, clock) as one, opened(tmp_path, clock) as other:
        for each in gone + kept:
            call(one, each, 0.5)
        clock.at += MINUTE
        call(other, gone[0])
        size = (tmp_path / "table").stat().st_size
        clock.at += 2 * DAY
        one.keep({each.id for each in kept + new})
        for each in new:
            call(one, each)

        assert (tmp_path / "table").stat().st_size == size
        assert [(await other.used(each))[0].money for each in kept] == [0.5] * 4
        for each in new:
            with pytest.raises(RateLimited):
                call(other, each)
        call(other, gone[0])  # which has a slot of its own again


async def test_a_slot_in_use_is_nobodys_to_take(tmp_path: Path) -> None:
    clock = Clock()
    running, busy = key("running", Limits(concurrency=1)), key("busy", Limits(concurrency=1))

    async with opened(tmp_path, clock) as limiter:
        ticket = limiter.admit(running, tokens=0, cost=0.0)
        clock.at += 2 * DAY
        call(limiter, busy)
        limiter.keep(())
        for n in range(100):
            call(limiter, key(f"new{n}", Limits(concurrency=1)))

        with pytest.raises(RateLimited):
            call(limiter, running)
        ticket.settle(0, 0.0)
        call(limiter, running)


async def test_a_clock_that_is_set_back_costs_a_minute_at_most(tmp_path: Path) -> None:
    clock, slow = Clock(), key(limits=Limits(requests_per_minute=1))

    async with opened(tmp_path, clock) as limiter:
        call(limiter, slow)
        clock.at -= DAY
        with pytest.raises(RateLimited) as caught:
            call(limiter, slow)
        clock.at += MINUTE
        call(limiter, slow)

    assert caught.value.retry_after_s == 60.0


async def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as limiter:
        call(limiter, BUSY)
    table = tmp_path / "table"
    table.write_bytes(table.read_bytes()[:8] + b"\x09" + table.read_bytes()[9:])

    with pytest.raises(LimitsUnusable, match=r"is version 9, .* move it away \(mv "):
        SharedLimits(tmp_path)


@pytest.mark.parametrize("content", [b"x", b"{}" * 100_000])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table").write_bytes(content)

    with pytest.raises(LimitsUnusable, match="move it away"):
        SharedLimits(tmp_path)

    assert (tmp_path / "table").read_bytes() == content


async def test_a_key_that_no_room_is_left_for_is_refused_and_others_are_served(
    tmp_path: Path,
) -> None:
    keys = [key(f"k{n}", Limits(concurrency=1)) for n in range(100)]
    async with opened(tmp_path, Clock()) as limiter:
        call(limiter, keys[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "table").stat().st_size, hard))
        try:
            for each in keys[:64]:
                call(limiter, each)
            with pytest.raises(Unavailable, match="cannot grow"):
                call(limiter, keys[-1])
            call(limiter, keys[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        call(limiter, keys[-1])


def test_so_many_workers_and_no_more_share_a_file(tmp_path: Path) -> None:
    lives = [Life.any(tmp_path) for _ in range(WORKERS)]

    with pytest.raises(LimitsUnusable, match="56 workers"):
        Life.any(tmp_path)
    lives[7].end()
    lives[7] = Life.any(tmp_path)

    assert [life.worker for life in lives] == list(range(WORKERS))
    for life in lives:
        life.end()


def test_a_place_that_cannot_be_written_is_refused_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LimitsUnusable, match=r"cannot count in .*: Not a directory"):
        SharedLimits(tmp_path / "file" / "limits")


def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(LimitsUnusable, match="not memcached://"):
        open_limits("memcached://127.0.0.1")
