from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet import (
    LONGEST_BENCH_S,
    RETRIES_PER_S,
    RETRIES_SAVED,
    SLACK,
    Fleet,
)
from serving.registry import EngineReport, EngineState

NOW = datetime(2026, 9, 1, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> Fleet:
    return Fleet(now=clock, seed=b"w0")


def engines(count: int) -> tuple[EngineReport, ...]:
    return tuple(
        EngineReport(f"e{i}", f"http://e{i}", "base", EngineState.READY, frozenset(), NOW)
        for i in range(count)
    )


def ids(order: object) -> list[str]:
    return [engine.engine_id for engine in order]  # type: ignore[attr-defined]


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8), st.binary(min_size=1))
def test_nobody_much_busier_than_the_least_busy_is_chosen_and_the_others_follow_by_load(
    loads: list[int], sticky: bytes
) -> None:
    fleet = Fleet(now=lambda: 0.0, seed=b"")
    for number, load in enumerate(loads):
        for _ in range(load):
            fleet.begin(f"e{number}")

    order = ids(fleet.order(engines(len(loads)), "base", sticky))

    by_load = [fleet.calls(engine) for engine in order]
    assert sorted(order) == sorted(ids(engines(len(loads))))
    assert by_load[0] <= min(loads) + SLACK + min(loads) // 4
    assert by_load[1:] == sorted(by_load[1:])


def test_the_same_conversation_and_adapter_stay_with_one_engine_in_every_worker() -> None:
    workers = [Fleet(now=lambda: 0.0, seed=seed) for seed in (b"w0", b"w1")]

    chosen = {
        fleet.order(engines(5), "helpdesk--abc", b"episode 1")[0].engine_id for fleet in workers
    }

    assert len(chosen) == 1


def test_conversations_spread_evenly_over_engines(fleet: Fleet) -> None:
    chosen = Counter(
        fleet.order(engines(4), "base", b"%d" % number)[0].engine_id for number in range(4000)
    )

    # Binomial(4000, 1/4) has a standard deviation of 27.
    assert all(abs(count - 1000) < 4 * 27.4 for count in chosen.values())


def test_an_engine_that_goes_moves_only_its_own_conversations(fleet: Fleet) -> None:
    four, three = engines(4), engines(3)

    def chosen(number: int, among: tuple[EngineReport, ...]) -> str:
        return fleet.order(among, "base", b"%d" % number)[0].engine_id

    moved = [n for n in range(500) if chosen(n, four) != chosen(n, three)]

    assert moved == [n for n in range(500) if chosen(n, four) == "e3"]


def test_an_engine_that_does_not_answer_is_left_alone_for_a_growing_while(
    fleet: Fleet, clock: Clock
) -> None:
    waits = []
    for _ in range(8):
        fleet.begin("e0")
        fleet.end("e0", failed=True)
        began = clock.now
        while fleet.benched("e0"):
            clock.now += 0.25
        waits.append(clock.now - began)

    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_BENCH_S


def test_calls_that_break_together_are_one_failure(fleet: Fleet, clock: Clock) -> None:
    for _ in range(100):
        fleet.begin("e0")
    for _ in range(100):
        fleet.end("e0", failed=True)

    clock.now += 0.5

    assert not fleet.benched("e0")
    assert fleet.calls("e0") == 0


def test_an_answer_clears_an_engine_of_its_failures(fleet: Fleet, clock: Clock) -> None:
    for failed in (True, False, True):
        fleet.begin("e0")
        fleet.end("e0", failed=failed)

    clock.now += 0.5

    assert not fleet.benched("e0")


def test_benched_engines_are_left_out_while_another_is_there(fleet: Fleet) -> None:
    fleet.end("e1", failed=True)

    order = fleet.order(engines(3), "base", b"x")

    assert sorted(ids(order)) == ["e0", "e2"]


def test_when_all_are_benched_the_least_recently_benched_is_tried_first(
    fleet: Fleet, clock: Clock
) -> None:
    for engine in ("e2", "e0", "e1"):
        fleet.end(engine, failed=True)
        clock.now += 0.1

    order = fleet.order(engines(3), "base", b"x")

    assert ids(order) == ["e2", "e0", "e1"]


def test_the_only_engine_is_tried_even_when_it_failed(fleet: Fleet) -> None:
    fleet.end("e0", failed=True)

    assert ids(fleet.order(engines(1), "base", None)) == ["e0"]


def test_retries_end_with_their_budget_and_come_back_with_requests_and_time(
    fleet: Fleet, clock: Clock
) -> None:
    spent = 0
    while fleet.may_retry():
        fleet.begin("e0")
        spent += 1
    for _ in range(50):
        fleet.begin("e0")
    after_requests = [fleet.may_retry() for _ in range(9)].count(True)
    clock.now += 10 / RETRIES_PER_S
    after_time = [fleet.may_retry() for _ in range(11)].count(True)

    assert spent == RETRIES_SAVED
    assert after_requests == 8  # 50 requests earn 10; a retry without its ``begin`` costs 1.2
    assert after_time == 8


def test_no_two_calls_draw_alike(fleet: Fleet) -> None:
    other = Fleet(now=lambda: 0.0, seed=b"w1")

    drawn = [one.fresh() for one in (fleet, other) for _ in range(100)]

    assert len(set(drawn)) == 200
