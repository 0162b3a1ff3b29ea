"""Load shedding: never more than the limit, and a quiet tenant gets its place."""

import heapq
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capacity import Capacity
from gateway.errors import Overloaded

TENANTS = "abcde"
Steps = st.lists(st.tuples(st.sampled_from(TENANTS), st.booleans()), max_size=300)


def entered(capacity: Capacity, tenant: str, n: int) -> int:
    """How many of so many calls of a tenant's begin."""
    begun = 0
    for _ in range(n):
        try:
            capacity.enter(tenant)
        except Overloaded:
            continue
        begun += 1
    return begun


def room(limit: int, mine: int, active: int) -> int:
    """The rule, in its own words."""
    if mine < limit // 20 / active or mine == 0:
        return limit
    if mine < (limit - limit // 10) / active:
        return limit - limit // 20
    return limit - limit // 10


@given(limit=st.integers(20, 60), steps=Steps)
def test_who_is_let_in_is_as_the_rule_says(limit: int, steps: list[tuple[str, bool]]) -> None:
    capacity, under_way = Capacity(limit), Counter[str]()

    for tenant, enters in steps:
        if enters:
            active = len(+under_way | Counter({tenant: 1}))
            may = under_way.total() < room(limit, under_way[tenant], active)
            assert entered(capacity, tenant, 1) == may
            under_way[tenant] += may
        elif under_way[tenant]:
            capacity.leave(tenant)
            under_way[tenant] -= 1
        assert capacity.running == under_way.total() <= limit


@given(limit=st.integers(1, 30), steps=Steps)
def test_a_worker_of_any_size_keeps_its_limit_and_ends_empty(
    limit: int, steps: list[tuple[str, bool]]
) -> None:
    capacity, under_way = Capacity(limit), Counter[str]()

    for tenant, _ in steps:
        under_way[tenant] += entered(capacity, tenant, 1)
        assert capacity.running == under_way.total() <= limit
    for tenant in under_way.elements():
        capacity.leave(tenant)

    assert capacity.running == 0
    assert entered(capacity, "again", 1) == 1


@given(
    limit=st.integers(80, 600),
    noisy=st.lists(st.tuples(st.sampled_from("bcd"), st.integers(1, 600)), max_size=12),
)
def test_a_quiet_tenant_finds_a_place_whatever_the_others_do(
    limit: int, noisy: list[tuple[str, int]]
) -> None:
    capacity = Capacity(limit)
    part = limit // 20 // 4

    for tenant, n in noisy:
        entered(capacity, tenant, n)

    assert entered(capacity, "quiet", part) == part


def test_a_tenant_alone_may_use_nine_tenths() -> None:
    capacity = Capacity(100)

    begun = entered(capacity, "acme", 200)

    assert begun == 90


def test_who_came_first_gives_way_to_who_came_later_until_they_have_the_same() -> None:
    capacity = Capacity(100)
    under_way = Counter({"first": entered(capacity, "first", 100)})

    for _ in range(200):
        leaver = max(under_way, key=lambda tenant: under_way[tenant])
        capacity.leave(leaver)
        under_way[leaver] -= 1
        for tenant in ("first", "second", "third"):
            under_way[tenant] += entered(capacity, tenant, 10)

    assert max(under_way.values()) - min(under_way.values()) <= 6
    assert under_way.total() >= 90


def test_a_worker_for_one_call_takes_one() -> None:
    capacity = Capacity(1)

    assert entered(capacity, "acme", 2) == 1


def test_who_is_over_its_share_is_told_to_come_later_than_who_found_no_place() -> None:
    capacity = Capacity(20)
    entered(capacity, "noisy", 20)

    with pytest.raises(Overloaded, match="`noisy` has 18 of 18 calls") as greedy:
        capacity.enter("noisy")
    entered(capacity, "quiet", 2)
    entered(capacity, "other", 1)
    with pytest.raises(Overloaded, match="20 calls are under way") as full:
        capacity.enter("third")

    assert (greedy.value.retry_after_s, full.value.retry_after_s) == (2.0, 1.0)


def test_a_quiet_tenant_hardly_notices_one_that_offers_ten_times_the_capacity() -> None:
    """Calls of one second: 1000 a second offered to 100 places, beside 8 a second."""
    capacity, ends = Capacity(100), list[tuple[int, str]]()
    offered, begun = Counter[str](), Counter[str]()

    for ms in range(60_000):
        while ends and ends[0][0] <= ms:
            capacity.leave(heapq.heappop(ends)[1])
        for tenant in ["noisy"] + ["quiet"] * (ms % 125 == 0):
            offered[tenant] += 1
            if entered(capacity, tenant, 1):
                begun[tenant] += 1
                heapq.heappush(ends, (ms + 1000, tenant))

    assert begun["quiet"] > 0.99 * offered["quiet"]
    assert begun["noisy"] >= 0.9 * 60 * (100 - 8 - 10)
