"""How three meters (the log, the limits' counters, /metrics) compare with the engines' ledgers."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.keys import Window
from gateway.limits import SharedLimits
from gateway.limits.ticket import MONEY
from gateway.log.store import Store
from tests.chaos.gateway.ledger import Sent, Tokens, read
from tests.chaos.gateway.world import BASE, HELPDESK, PINNED, SMALL, SPARE, WATCHER, World

GROUPS = "api_key_id,model,adapter,arm,operation"
NOTHING = Tokens()
SHADOW = "shadow"

Group = tuple[str, str, str | None, str, str]
"""Key, name that was asked for, adapter, arm, operation."""

_ROWS = """
SELECT id::VARCHAR AS id, key_id, request_model, adapter, arm, operation_name,
  coalesce(input_tokens, 0) AS prompt, coalesce(cache_read_input_tokens, 0) AS cached,
  coalesce(output_tokens, 0) AS completion, coalesce(reasoning_output_tokens, 0) AS reasoning
FROM invocations
"""
_METRIC = re.compile(
    r'^ratchet_tokens_total\{alias="(\w+)",arm="(\w+)",type="(\w+)"\} (\S+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Row:
    """What the log has of one call."""

    group: Group
    tokens: Tokens


@dataclass(slots=True)
class Log:
    """The whole log by id, and the ids that it has more than once."""

    rows: dict[str, Row] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, store: Store) -> "Log":
        log = cls()
        for batch in store.batches(_ROWS):
            for row in batch.to_pylist():
                call = row["id"].replace("-", "")
                if call in log.rows:
                    log.doubled.append(call)
                names = ("key_id", "request_model", "adapter", "arm", "operation_name")
                key, name, adapter, arm, operation = (row[one] for one in names)
                tokens = Tokens(*(row[one] for one in Tokens.__struct_fields__))
                log.rows[call] = Row((key, name, adapter, arm, operation), tokens)
        return log


@dataclass(frozen=True, slots=True)
class Ledgers:
    """What all engines sent, by the id of the call."""

    sent: dict[str, Sent]
    doubled: tuple[str, ...]
    """Ids that two answers were sent for."""

    @classmethod
    def of(cls, world: World) -> "Ledgers":
        sent: dict[str, Sent] = {}
        doubled = []
        for one in read(world.ledgers):
            if one.id in sent:
                doubled.append(one.id)
            sent[one.id] = one
        return cls(sent, tuple(doubled))

    def by_key(self, *, but: frozenset[str] = frozenset()) -> dict[str, tuple[int, int]]:
        """Tokens and cost that keys are charged for: not for shadows'. ``but`` some calls."""
        found: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for one in self.sent.values():
            if not one.model.startswith(WATCHER) and one.id not in but:
                tokens, money = found[one.key]
                spent = one.tokens.prompt + one.tokens.completion
                found[one.key] = tokens + spent, money + one.tokens.nanos
        return dict(found)


def groups_of(sent: Sent, live: Mapping[str, str]) -> set[Group]:
    """As what a call may be logged that was sent so: an incumbent that stands in is a fallback."""
    first, second, watcher = live[HELPDESK], live[PINNED], live[WATCHER]
    arms = {
        (HELPDESK, first): ("incumbent", "fallback"),
        (HELPDESK, second): ("canary",),
        (HELPDESK, watcher): (SHADOW,),
        (HELPDESK, SMALL): ("fallback",),
        (SPARE, SMALL): ("incumbent",),
        (PINNED, second): ("pinned",),
    }
    adapter = None if sent.model in {BASE, SMALL} else sent.model
    known = arms.get((sent.name, sent.model), ())
    return {(sent.key, sent.name, adapter, arm, sent.operation) for arm in known}


@dataclass(slots=True)
class Differences:
    """Ids, or what is not the same on both sides."""

    unlogged: list[str] = field(default_factory=list)
    """Sent by an engine, and not in the log."""
    unsent: list[str] = field(default_factory=list)
    """In the log with tokens, and sent by no engine."""
    other: list[str] = field(default_factory=list)
    """In both, with other tokens or another key, alias, adapter, arm or operation."""
    unacked_unlogged: list[str] = field(default_factory=list)
    """Unlogged, and no client had its last byte: what kills of workers may take."""
    lost: list[str] = field(default_factory=list)
    """Given to a client to the last byte, and not in the log, or of another key there."""


def compare(log: Log, ledgers: Ledgers, live: Mapping[str, str]) -> Differences:
    """Call by call."""
    found = Differences()
    for call, sent in ledgers.sent.items():
        row = log.rows.get(call)
        if row is None:
            found.unlogged.append(call)
        elif row.tokens != sent.tokens or row.group not in groups_of(sent, live):
            found.other.append(f"{call}: sent {sent}, logged {row}")
    found.unsent = [
        f"{call}: {row}"
        for call, row in log.rows.items()
        if row.tokens != NOTHING and call not in ledgers.sent
    ]
    return found


def split(found: Differences, log: Log, acked: Mapping[str, str]) -> None:
    """Tell what clients had from what they had not."""
    found.unacked_unlogged = [call for call in found.unlogged if call not in acked]
    found.lost = [
        call
        for call, key in acked.items()
        if call not in log.rows or log.rows[call].group[0] != key
    ]


def summed(ledgers: Ledgers, log: Log, live: Mapping[str, str]) -> dict[Group, Tokens]:
    """What usage has to say. Only the log knows whether an incumbent stood in for an arm."""
    found: dict[Group, Tokens] = {}
    for call, sent in ledgers.sent.items():
        groups = groups_of(sent, live)
        row = log.rows.get(call)
        group = row.group if row is not None and row.group in groups else min(groups)
        found[group] = found.get(group, NOTHING).plus(sent.tokens)
    return found


async def usage(world: World, session: aiohttp.ClientSession) -> tuple[dict[Group, Tokens], float]:
    """What ``GET /v1/usage`` says to the tenants' administrators, and the cost of it all."""
    found: dict[Group, Tokens] = {}
    cost = 0.0
    url = f"http://127.0.0.1:{world.port}/v1/usage"
    for admin in world.admins:
        headers = {"authorization": f"Bearer {admin.secret}"}
        async with session.get(url, params={"group_by": GROUPS}, headers=headers) as response:
            page = await response.json()
            response.raise_for_status()
        for one in (one for bucket in page["data"] for one in bucket["results"]):
            group = tuple(one[name] for name in GROUPS.split(","))
            tokens = _tokens(one)
            cost += one["cost"] or 0.0
            if tokens != NOTHING:
                found[group] = found.get(group, NOTHING).plus(tokens)
    return found, cost


async def spent(world: World) -> dict[str, tuple[int, int]]:
    """The limits' counters: the tokens and the cost that each key with a budget has used."""
    found = {}
    limits = SharedLimits(world.limits)
    try:
        for key in world.keys.values():
            for one in await limits.used(key):
                if one.window is Window.TOTAL and (one.tokens or one.money):
                    found[key.id] = one.tokens, round(one.money * MONEY)
    finally:
        await limits.close()
    return found


async def metrics(world: World, session: aiohttp.ClientSession) -> Counter[tuple[str, str, str]]:
    """Tokens by alias, arm and type, as /metrics tells."""
    async with session.get(f"http://127.0.0.1:{world.port}/metrics") as response:
        text = await response.text()
    told = Counter({(a, arm, kind): int(float(n)) for a, arm, kind, n in _METRIC.findall(text)})
    return +told


def as_metrics(rows: Iterable[Row]) -> Counter[tuple[str, str, str]]:
    """What /metrics has to say of these."""
    told: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        alias, arm = row.group[1].partition("@")[0], row.group[3]
        for kind, n in zip(
            ("input", "cached", "output", "reasoning"),
            (getattr(row.tokens, name) for name in Tokens.__struct_fields__),
            strict=True,
        ):
            told[alias, arm, kind] += n
    return +told


def _tokens(one: Mapping[str, Any]) -> Tokens:
    names = ("input_tokens", "input_cached_tokens", "output_tokens", "output_reasoning_tokens")
    return Tokens(*(one[name] for name in names))
