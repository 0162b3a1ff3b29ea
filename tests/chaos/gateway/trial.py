"""Two storms over one house, and what came of them.

In the first, clients are cut, engines killed, keys revoked and limits hit, and every meter has to
say exactly what the engines sent. In the second workers are killed as well: what they had under
way is nobody's, but what a client has to its last byte is in the log, once, as it was sent.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from gateway.log.store import Store
from tests.chaos.gateway.calm import calm
from tests.chaos.gateway.clients import Seen
from tests.chaos.gateway.ledger import Tokens
from tests.chaos.gateway.oracle import (
    Differences,
    Group,
    Ledgers,
    Log,
    Row,
    as_metrics,
    compare,
    metrics,
    spent,
    split,
    summed,
    usage,
)
from tests.chaos.gateway.storm import Storm, Weather, published
from tests.chaos.gateway.world import World
from tests.chaos.storm import say

USAGE_WITHIN_S = 600.0
NANO = 1e-9


@dataclass(frozen=True, slots=True)
class Meters:
    """What all meters said at one moment, and the ledgers."""

    ledgers: Ledgers
    usage: dict[Group, Tokens]
    cost: float
    spent: dict[str, tuple[int, int]]
    metrics: dict[tuple[str, str, str], int]

    @classmethod
    async def of(cls, world: World) -> "Meters":
        async with aiohttp.ClientSession() as session:
            told, cost = await _usage(world, session)
            counters = dict(await metrics(world, session))
        return cls(Ledgers.of(world), told, cost, await spent(world), counters)


@dataclass(slots=True)
class Spell:
    """What one storm was, and what is left of it."""

    figures: dict[str, Any]
    meters: Meters
    seen: Seen
    problems: list[str] = field(default_factory=list)


async def trial(
    folder: Path, *, ports: Sequence[int], seed: int, weathers: list[Weather]
) -> dict[str, Any]:
    """All storms, then the log call by call. ``problems`` is empty when all is as it should be."""
    with World.running(folder, ports=ports, seed=seed) as world:
        for worker in world.workers:
            await published(folder, worker)
        spells = [await _spell(world, weather, seed) for weather in weathers]
    with Store(folder / "log.duckdb") as store:
        log = await asyncio.to_thread(Log.of, store)
    for spell, weather in zip(spells, weathers, strict=True):
        kills = weather.worker_kills_s is not None
        _judge(spell, log, world, kills=kills)
    acked = {call: key for spell in spells for call, key in spell.seen.acked.items()}
    found = compare(log, spells[-1].meters.ledgers, world.live)
    split(found, log, acked)
    problems = [problem for spell in spells for problem in spell.problems]
    problems += _of_all(found, log, spells, weathers)
    return {
        "storms": [spell.figures for spell in spells],
        "calls": {
            "acked": len(acked),
            "logged": len(log.rows),
            "lost": len(found.lost),
            "doubled": len(log.doubled),
            "sent": len(spells[-1].meters.ledgers.sent),
            "unsent": len(found.unsent),
            "other": len(found.other),
            "unlogged": len(found.unlogged),
            "unlogged_of_cut_or_killed": len(found.unacked_unlogged),
        },
        "problems": problems,
    }


async def _spell(world: World, weather: Weather, seed: int) -> Spell:
    storm = Storm(world, weather, random.Random(seed))
    seen = await storm.run()
    say(f"{seen.asked} requests in {storm.seconds:.0f} s, {dict(seen.statuses)}, {storm.kills}")
    left = await calm(world)
    meters = await Meters.of(world)
    figures = {
        "requests": seen.asked,
        "seconds": round(storm.seconds, 1),
        "statuses": {str(status): n for status, n in sorted(seen.statuses.items())},
        "cuts": dict(seen.cuts),
        "kills": storm.kills,
        "revocations": storm.revocations,
        "broken_streams": seen.broken_streams,
        "lost_lines": seen.lost_lines,
        "memory_mb": {
            name: [round(size / 1e6, 1) for size in sizes] for name, sizes in storm.memory.items()
        },
        "left": left,
    }
    spell = Spell(figures, meters, seen, [f"wrong: {one}" for one in seen.wrong])
    if left:
        spell.problems.append(f"not gone: {left}")
    return spell


def _judge(spell: Spell, log: Log, world: World, *, kills: bool) -> None:
    """Compare the sums; with ``kills`` of workers, the counters lie between log and ledger."""
    meters, problems = spell.meters, spell.problems
    sent = summed(meters.ledgers, log, world.live)
    total = _total(sent)
    spell.figures["tokens_in_ledger"] = _json(total)
    spell.figures["tokens_in_usage"] = _json(_total(meters.usage))
    charged = meters.ledgers.by_key()
    budgets = {key: charged.get(key, (0, 0)) for key in world.keys if world.keys[key].budgets}
    budgets = {key: used for key, used in budgets.items() if any(used)}
    if kills:
        gone = frozenset(call for call in meters.ledgers.sent if call not in log.rows)
        least = meters.ledgers.by_key(but=gone)
        for key, most in budgets.items():
            used, logged = meters.spent.get(key, (0, 0)), least.get(key, (0, 0))
            if not all(a <= b <= c for a, b, c in zip(logged, used, most, strict=True)):
                problems.append(f"budget of {key}: logged {logged}, used {used}, sent {most}")
        return
    if spell.seen.lost_lines:
        problems.append(f"{spell.seen.lost_lines} clients were cut by the gateway")
    problems += _unlike("usage", sent, meters.usage)
    problems += _unlike("budgets", budgets, meters.spent)
    rows = [Row(group, tokens) for group, tokens in sent.items()]
    problems += _unlike("metrics", as_metrics(rows), meters.metrics)
    if abs(total.nanos * NANO - meters.cost) > NANO * len(meters.ledgers.sent):
        problems.append(f"cost: sent {total.nanos * NANO}, usage {meters.cost}")


def _of_all(
    found: Differences, log: Log, spells: list[Spell], weathers: list[Weather]
) -> list[str]:
    """What is wrong call by call."""
    problems = [f"{name}: {one}" for name in ("other", "unsent") for one in getattr(found, name)]
    problems += [f"lost: {call}" for call in found.lost]
    problems += [f"doubled in the log: {call}" for call in log.doubled]
    problems += [f"sent twice: {call}" for call in spells[-1].meters.ledgers.doubled]
    for spell, weather in zip(spells, weathers, strict=True):
        if weather.worker_kills_s is None:
            sent = spell.meters.ledgers.sent
            problems += [f"unlogged: {sent[call]}" for call in found.unlogged if call in sent]
    return problems


def _unlike(what: str, sent: Any, told: Any) -> list[str]:
    return [
        f"{what} of {key}: sent {sent.get(key)}, told {told.get(key)}"
        for key in sorted(sent.keys() | told.keys(), key=str)
        if sent.get(key) != told.get(key)
    ]


def _total(groups: dict[Group, Tokens]) -> Tokens:
    total = Tokens()
    for tokens in groups.values():
        total = total.plus(tokens)
    return total


async def _usage(world: World, session: aiohttp.ClientSession) -> tuple[dict[Group, Tokens], float]:
    """Once the owner of the log has caught up with what was spooled."""
    async with asyncio.timeout(USAGE_WITHIN_S):
        while True:
            try:
                return await usage(world, session)
            except aiohttp.ClientResponseError:
                await asyncio.sleep(1.0)


def _json(tokens: Tokens) -> dict[str, int]:
    return msgspec.structs.asdict(tokens)
