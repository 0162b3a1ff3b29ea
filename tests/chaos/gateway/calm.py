"""What is left when a storm is over: nothing that is under way, held, or half open."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from gateway.limits.table import CELLS, MONEY_KEPT, RUNNING, TOKENS_KEPT, Table, digest
from tests.chaos.gateway.world import World

WITHIN_S = 60.0
_GAUGE = re.compile(r"^ratchet_(?:engine_)?in_flight\{\w+=\"([^\"]+)\"\} (\S+)$", re.MULTILINE)
_LISTEN, _TIME_WAIT = "0A", "06"
_STATES = {"01": "established", "08": "close_wait", "04": "fin_wait1", "05": "fin_wait2"}
_STATES |= {"09": "last_ack", "0B": "closing"}


async def under_way(world: World, session: aiohttp.ClientSession) -> dict[str, float]:
    """Calls by worker and by engine, as /metrics tells; empty when there are none."""
    async with session.get(f"http://127.0.0.1:{world.port}/metrics") as response:
        text = await response.text()
    found = {name: float(value) for name, value in _GAUGE.findall(text)}
    if not {worker.name for worker in world.workers} <= found.keys():
        return {"a worker that does not tell": 1.0}
    return {name: value for name, value in found.items() if value}


def held(world: World) -> dict[str, list[int]]:
    """By key: the calls, tokens and money that limits still hold, and what is left in cells."""
    table = Table(world.limits)
    try:
        return dict(_held(table, world))
    finally:
        table.close()


def _held(table: Table, world: World) -> Iterator[tuple[str, list[int]]]:
    for key_id in world.keys:
        number = table.find(digest(key_id))
        if number is not None:
            words = table.words(number)
            left = [words[RUNNING], words[TOKENS_KEPT], words[MONEY_KEPT]]
            left.append(sum(map(abs, words[CELLS:].tolist())))
            if any(left):
                yield key_id, left


def connections(world: World) -> dict[str, int]:
    """What the kernel still has of connections to the engines, by state."""
    ports = world.engine_ports.values()
    found: dict[str, int] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        places = {int(one.rpartition(":")[2], 16) for one in (local, remote)}
        if state not in {_LISTEN, _TIME_WAIT} and not places.isdisjoint(ports):
            name = _STATES.get(state, state)
            found[name] = found.get(name, 0) + 1
    return found


async def calm(world: World) -> dict[str, object]:
    """What has not gone within a minute; nothing, when all is well."""
    left: dict[str, object] = {}
    async with aiohttp.ClientSession() as session:
        for _ in range(int(WITHIN_S / 0.25)):
            for name in world.engines:
                await asyncio.to_thread(world.report, name)
            left = {
                "under_way": await under_way(world, session),
                "held": held(world),
                "connections": connections(world),
            }
            left = {name: what for name, what in left.items() if what}
            if not left:
                break
            await asyncio.sleep(0.25)
    return left
