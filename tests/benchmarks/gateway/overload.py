"""What becomes of clients when more comes than the engine can do.

    make bench-overload [JSON=FILE]

An engine with SLOTS slots of SERVICE_S each, so its capacity is known. Load is open-loop: clients
do not wait for each other, as the public does not. Printed: answers a second at half, once and
twice the capacity; how soon the refused ones hear of it; and what a quiet tenant gets beside one
that sends ten times what the engine can do.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.benchmarks.gateway.ours import ALIAS, ours
from tests.benchmarks.gateway.tools import Process
from tests.integration.conftest import free_port

SLOTS = 32
SERVICE_S = 0.2
CAPACITY = SLOTS / SERVICE_S
IN_FLIGHT = SLOTS + SLOTS // 4
"""The gateway's own limit: the engine's slots and a little, so that none is ever idle."""
_BODY = {"model": ALIAS, "messages": [{"role": "user", "content": "is it?"}]}


@dataclass
class Tally:
    """What one tenant's clients got."""

    latency_s: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By status."""
    without_retry_after: int = 0

    @property
    def answered(self) -> int:
        return len(self.latency_s[200])

    @property
    def refused(self) -> list[float]:
        return [one for status, all_ in self.latency_s.items() if status != 200 for one in all_]

    @property
    def success(self) -> float:
        return self.answered / max(1, self.answered + len(self.refused))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    told = parser.parse_args()
    upstream, port = free_port(), free_port()
    engine = [sys.executable, "-m", "tests.benchmarks.gateway.slots"]
    engine += [str(upstream), str(SLOTS), str(SERVICE_S)]
    with Process(engine, core=1, cwd=Path(__file__).parents[3]) as running:
        running.wait_for(f"http://127.0.0.1:{upstream}/health", {})
        settings = {"GATEWAY_CAPACITY": str(IN_FLIGHT)}
        tenants = ("noisy", "quiet")
        with ours(port, upstream, 0, tenants=tenants, more=settings) as (_, *headers):
            figures = asyncio.run(_measure(port, headers, told.seconds))
    for name, value in figures.items():
        print(f"{name:38} {value:,.3f}")
    if told.json:
        told.json.write_text(json.dumps(figures, indent=1))


async def _measure(port: int, headers: list[Mapping[str, str]], seconds: float) -> dict[str, float]:
    noisy, quiet = headers
    rates: dict[float, Tally] = {}
    for load in (0.5, 1.0, 2.0):
        (rates[load],) = await _offer(port, {load * CAPACITY: noisy}, seconds)
    crowd, few = await _offer(port, {10 * CAPACITY: noisy, 0.05 * CAPACITY: quiet}, seconds)
    goodput = {load: tally.answered / seconds for load, tally in rates.items()}
    over = rates[2.0]
    return {
        "capacity of the engine, answers/s": CAPACITY,
        **{f"answers/s at {load:g} x capacity": rate for load, rate in goodput.items()},
        "goodput at 2 x over peak": goodput[2.0] / max(goodput.values()),
        "refused at 2 x, p50 ms": 1000 * statistics.median(over.refused),
        "refused at 2 x, p99 ms": 1000 * statistics.quantiles(over.refused, n=100)[98],
        "refused without Retry-After": float(over.without_retry_after),
        "noisy tenant at 10 x, success": crowd.success,
        "quiet tenant beside it, success": few.success,
        "quiet tenant beside it, p99 ms": 1000
        * statistics.quantiles(few.latency_s[200], n=100)[98],
    }


async def _offer(
    port: int, rates: Mapping[float, Mapping[str, str]], seconds: float
) -> list[Tally]:
    """Send at each rate for so long; what each sender got, all answers waited for."""
    tallies = [Tally() for _ in rates]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with asyncio.TaskGroup() as group:
            for (rate, headers), tally in zip(rates.items(), tallies, strict=True):
                group.create_task(_send(session, url, headers, rate, seconds, tally))
    return tallies


async def _send(  # noqa: PLR0917 - who sends what where
    session: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str],
    rate: float,
    seconds: float,
    tally: Tally,
) -> None:
    async def one() -> None:
        started = time.perf_counter()
        async with session.post(url, json=_BODY, headers=headers) as response:
            await response.read()
        tally.latency_s[response.status].append(time.perf_counter() - started)
        missing = response.status != 200 and "retry-after" not in response.headers
        tally.without_retry_after += missing

    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while (passed := loop.time() - start) < seconds:
            for _ in range(int(passed * rate) - sent):
                group.create_task(one())
                sent += 1
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    main()
