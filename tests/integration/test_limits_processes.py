"""Limits counted by real processes at once, some of which are killed in the middle of it."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.keys import Budget, Key, Limits, Window
from gateway.limits import SharedLimits, Ticket
from tests.redis_process import running_redis

START = 1_800_000_000 * 10**9
PREAMBLE = f"""
import asyncio, os, sys, time
from gateway.errors import GatewayError
from gateway.keys import Budget, Key, Limits, Window
from gateway.limits import open_limits
START = {START}
async def main():
    limiter = open_limits(sys.argv[1], worker="w0", now=NOW)
    async def admit(key, tokens):
        found = limiter.admit(key, tokens=tokens, cost=0.001)
        return await found if limiter.remote else found
    print("ready", flush=True)
    sys.stdin.readline()
"""
FIXED, REAL = "NOW = lambda: START\n", "NOW = lambda: time.time_ns()\n"
RUN = "\nasyncio.run(main())\n"

HAMMER = """
    key, n = Key("k", "k", "t", limits=Limits(int(sys.argv[2]), int(sys.argv[3]))), 0
    for _ in range(int(sys.argv[4])):
        try:
            (await admit(key, 1)).settle(1, 0.001)
            n += 1
        except GatewayError:
            pass
    await limiter.close()
    print(n)
"""
SPEND = """
    budgets = (Budget(Window.DAY, tokens=10**12), Budget(Window.TOTAL, money=10**6))
    key = Key("k", "k", "t", limits=Limits(10**8, 10**9, 8), budgets=budgets)
    while True:
        ticket = await admit(key, 5)
        ticket.settle(3, 0.001)
        os.write(1, b".")
"""
HOLD = """
    key = Key("k", "k", "t", limits=Limits(None, 100, 3), budgets=(Budget(Window.DAY, tokens=50),))
    for _ in range(3):
        await admit(key, 15)
    print("held", flush=True)
    sys.stdin.readline()
"""


class Worker:
    """``python -c`` with its own opening of the limits."""

    def __init__(self, clock: str, job: str, *arguments: object) -> None:
        program = clock + PREAMBLE + job + RUN
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def go(self) -> "Worker":
        self.until(b"ready\n")
        assert self.process.stdin
        self.process.stdin.write(b"go\n")
        return self

    def output(self) -> bytes:
        """All that it has not said yet, once it has ended."""
        return self.process.communicate(timeout=120)[0]

    def kill(self) -> bytes:
        self.process.kill()
        return self.output()

    def until(self, line: bytes) -> "Worker":
        assert self._line() == line
        return self

    def _line(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()


@pytest.fixture(params=["shared", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "redis":
            yield stack.enter_context(running_redis(tmp_path)).url
        else:
            yield str(tmp_path / "limits")


def hammer(url: str, clock: str, *, rpm: int, tpm: int, each: int, workers: int) -> int:
    """How many all of them were let in."""
    running = [Worker(clock, HAMMER, url, rpm, tpm, each) for _ in range(workers)]
    for worker in running:
        worker.go()
    return sum(int(worker.output()) for worker in running)


def test_workers_together_let_in_exactly_what_is_allowed(url: str) -> None:
    n = hammer(url, FIXED, rpm=397, tpm=10**6, each=300, workers=2)

    assert n == 397


def test_workers_together_spend_exactly_the_tokens_there_are(url: str) -> None:
    n = hammer(url, FIXED, rpm=10**6, tpm=213, each=150, workers=2)

    assert n == 213


def test_in_real_time_no_more_is_let_in_than_flows_back(url: str) -> None:
    limit, began = 600, time.monotonic()

    n = hammer(url, REAL, rpm=limit, tpm=10**6, each=500, workers=2)
    passed = time.monotonic() - began

    assert limit <= n <= limit + passed * limit / 60 + 1


async def test_nothing_but_the_call_at_hand_is_lost_or_kept_when_workers_are_killed(
    tmp_path: Path,
) -> None:
    directory, settled, kills = tmp_path / "limits", 0, 6
    chance = random.Random(7)
    spenders = [Worker(FIXED, SPEND, directory) for _ in range(kills)]
    for spender in spenders[:2]:
        spender.go()
    for spender, later in zip_longest(spenders, spenders[2:]):
        # At any instruction: how far it has come is told by nothing but this.
        assert spender.process.stdout
        settled += len(spender.process.stdout.read(chance.randrange(1, 2000)))
        settled += len(spender.kill())
        if later:
            later.go()

    limiter = SharedLimits(directory, now=lambda: START)
    budgets = (Budget(Window.DAY, tokens=10**12), Budget(Window.TOTAL, money=10**6))
    day, total = await limiter.used(Key("k", "k", "t", budgets=budgets))
    exact = Key("k", "k", "t", limits=Limits(10**8, None, 8),
                budgets=(Budget(Window.DAY, tokens=day.tokens + 40),))  # fmt: skip
    n = sum(_admitted(limiter, exact, 5) is not None for _ in range(12))
    await limiter.close()

    assert 3 * settled <= day.tokens <= 3 * (settled + kills)
    assert settled <= round(total.money * 1000) <= settled + kills
    assert n == 8


async def test_what_a_dead_worker_had_under_way_is_given_back_within_seconds(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "limits"
    limiter = SharedLimits(directory, now=lambda: START)
    key = Key("k", "k", "t", limits=Limits(None, 100, 3), budgets=(Budget(Window.DAY, tokens=50),))
    holder = Worker(FIXED, HOLD, directory).go().until(b"held\n")

    before = _admitted(limiter, key, 1)
    holder.kill()
    deadline = time.monotonic() + 20
    while not (after := _admitted(limiter, key, 50)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await limiter.close()

    assert before is None
    assert after is not None
    # Of its tokens nothing is missing either: only the 50 just taken are.
    assert dict(after.headers)[b"x-ratelimit-remaining-tokens"] == b"50"


def _admitted(limiter: SharedLimits, key: Key, tokens: int) -> Ticket | None:
    try:
        return limiter.admit(key, tokens=tokens, cost=0.0)
    except GatewayError:
        return None
