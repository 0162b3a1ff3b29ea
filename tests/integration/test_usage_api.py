"""``/v1/usage`` and ``ratchet usage``: what was answered is counted, to whom it belongs."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from openai import AsyncOpenAI

from gateway.log.ingest import Ingester
from gateway.log.record import Invocation
from gateway.log.spool import SpoolWriter
from learner.api.app import create_app
from learner.api.owner import Owner
from learner.cli.main import main
from learner.jobs import TurnStore
from learner.log import open_erasures, open_ingester, open_log, open_upkeep
from learner.settings import load
from serving.database import open_database
from serving.registry import Registry
from tests.factories import NOW, invocation
from tests.integration.conftest import ALIAS, Gateway

CONFIG = "models: [{alias: helpdesk, base: Qwen/Qwen3-4B, price: {input: 1.0, output: 10.0}}]"
AT = int(NOW.timestamp())
HOUR, DAY = 3600, 86400
ADMIN = {"x-ratchet-tenant": "default", "x-ratchet-key": "key_a", "x-ratchet-scopes": "admin"}
CALLER = ADMIN | {"x-ratchet-key": "key_b", "x-ratchet-scopes": "inference,train"}


@dataclass(frozen=True, slots=True)
class House:
    """The learner's application, and the spool that a gateway worker would write to."""

    api: httpx.AsyncClient
    worker: SpoolWriter

    async def ask(self, headers: dict[str, str] = ADMIN, **asked: Any) -> dict[str, Any]:
        answer = await self.api.get("/v1/usage", params=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    config = load(tmp_path / "ratchet.yaml")
    with ExitStack() as stack:
        log = stack.enter_context(open_log(config))
        registry = Registry.open(config.database)
        stack.callback(registry.close)
        database = open_database(config.database)
        stack.callback(database.dispose)
        ingester = Ingester(log, config.spool, now=lambda: NOW)
        worker = SpoolWriter(config.spool, "w0", reserve=0)
        stack.callback(worker.close)
        owner = Owner(log, ingester, worker, lambda: NOW)
        turns = TurnStore(database)
        erasures = open_erasures(config, owner, open_upkeep(config, owner, turns), registry)
        stack.callback(erasures.close)
        transport = httpx.ASGITransport(create_app(owner, erasures, turns))
        async with httpx.AsyncClient(transport=transport, base_url="http://learner") as api:
            yield House(api, worker)


def call(key: str = "key_a", *, ago: float = 1, **changes: Any) -> Invocation:
    """A call of 10 tokens read, 4 of them from the cache, and 5 written, 2 of them thoughts."""
    fields = {
        "key_id": key,
        "ts": NOW - timedelta(seconds=ago),
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "reasoning_output_tokens": 2,
        "cost": 0.25,
    }
    return invocation(**fields | changes)


def results(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for bucket in page["data"] for one in bucket["results"]]


def counted(page: dict[str, Any], *names: str) -> dict[Any, int]:
    return {tuple(one[name] for name in names): one["num_model_requests"] for one in results(page)}


async def test_all_that_was_answered_until_now_is_counted(house: House) -> None:
    for _ in range(3):
        house.worker.append(call())

    page = await house.ask(limit=1)

    assert page == {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": AT - AT % DAY,
                "end_time": AT + 1,
                "results": [
                    {
                        "object": "organization.usage.completions.result",
                        "input_tokens": 30,
                        "output_tokens": 15,
                        "input_cached_tokens": 12,
                        "output_reasoning_tokens": 6,
                        "num_model_requests": 3,
                        "cost": 0.75,
                        "api_key_id": None,
                        "model": None,
                        "adapter": None,
                        "arm": None,
                        "task": None,
                        "operation": None,
                        "user_id": None,
                    }
                ],
            }
        ],
        "has_more": False,
        "next_page": None,
    }


async def test_use_is_counted_apart_by_what_is_asked_for(house: House) -> None:
    house.worker.append(call(arm="incumbent", adapter="helpdesk--1"))
    house.worker.append(call(arm="shadow", adapter="helpdesk--2"))
    house.worker.append(call("key_b", arm="incumbent", operation_name="embeddings"))

    by_key = await house.ask(group_by="api_key_id")
    by_both = await house.ask(**{"group_by[]": ["api_key_id", "arm"]})
    by_three = await house.ask(group_by="model,operation,adapter")

    assert counted(by_key, "api_key_id") == {("key_a",): 2, ("key_b",): 1}
    assert counted(by_both, "api_key_id", "arm") == {
        ("key_a", "incumbent"): 1,
        ("key_a", "shadow"): 1,
        ("key_b", "incumbent"): 1,
    }
    assert counted(by_three, "model", "operation", "adapter") == {
        ("helpdesk", "chat", "helpdesk--1"): 1,
        ("helpdesk", "chat", "helpdesk--2"): 1,
        ("helpdesk", "embeddings", None): 1,
    }


async def test_a_key_sees_its_own_use_and_an_admins_its_tenants(house: House) -> None:
    house.worker.append(call("key_a"))
    house.worker.append(call("key_b"))
    house.worker.append(call("key_c", tenant="other"))
    house.worker.append(call("key_b", origin="litellm"))

    own, tenants = await house.ask(CALLER), await house.ask(ADMIN)

    assert counted(own) == {(): 1}
    assert counted(tenants) == {(): 2}


async def test_pages_go_on_where_they_ended_and_count_each_call_once(house: House) -> None:
    start = AT - AT % HOUR - 3 * HOUR + 600
    for second in (0, HOUR - 600, HOUR, 2 * HOUR, 3 * HOUR - 601):
        house.worker.append(call(ago=AT - start - second))
    for second in (-1, 3 * HOUR):
        house.worker.append(call(ago=AT - start - second))
    asked: dict[str, Any] = {
        "start_time": start,
        "end_time": start + 3 * HOUR,
        "bucket_width": "1h",
        "limit": 2,
    }

    page = await house.ask(**asked)
    last = await house.ask(**asked, page=page["next_page"])

    buckets = [*page["data"], *last["data"]]
    borders = [start, start + 3000, start + 3000 + HOUR, start + 3000 + 2 * HOUR, start + 3 * HOUR]
    assert [one["start_time"] for one in buckets] == borders[:-1]
    assert [one["end_time"] for one in buckets] == borders[1:]
    requests = [[one["num_model_requests"] for one in bucket["results"]] for bucket in buckets]
    assert requests == [[1], [2], [2], []]
    assert (page["has_more"], last["has_more"], last["next_page"]) == (True, False, None)


async def test_without_times_a_page_ends_now(house: House) -> None:
    widths = {"1m": (60, 60), "1h": (24, HOUR), "1d": (7, DAY)}

    pages = {width: await house.ask(bucket_width=width) for width in widths}

    for width, (n, seconds) in widths.items():
        data = pages[width]["data"]
        assert len(data) == n
        assert data[0]["start_time"] == AT - AT % seconds - (n - 1) * seconds
        assert (data[-1]["end_time"], pages[width]["has_more"]) == (AT + 1, False)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": AT, "end_time": AT}, "end_time"),
        ({"bucket_width": "2h"}, "bucket_width"),
        ({"group_by": "moon"}, "group_by"),
        ({"limit": 0}, "limit"),
        ({"limit": 32}, "limit"),
        ({"limit": 169, "bucket_width": "1h"}, "limit"),
        ({"page": "page_7"}, "page"),
        ({"page": "next"}, "page"),
        ({"models": "helpdesk"}, "models"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_named(
    house: House, asked: dict[str, Any], param: str
) -> None:
    answer = await house.api.get("/v1/usage", params=asked, headers=ADMIN)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.fixture
def ratchet(tmp_path: Path) -> Callable[..., str]:
    """The command line beside a log of four calls, without a learner."""
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    config = load(tmp_path / "ratchet.yaml")
    calls = [call(arm="incumbent"), call("key_b"), call("key_b", tenant="other", cost=None)]
    with open_log(config) as log, closing(SpoolWriter(config.spool, "w0", reserve=0)) as worker:
        for one in [*calls, call(origin="bedrock")]:
            worker.append(one)
        open_ingester(config, log, lambda: NOW).run_once()

    def run(*arguments: str) -> str:
        environment = {"RATCHET_CONFIG": str(tmp_path / "ratchet.yaml")}
        done = CliRunner().invoke(main, ["usage", *arguments], env=environment)
        assert done.exit_code == 0, done.output
        return done.output

    return run


TABLE = """
key    model     calls  errors  prompt  cached  completion  reasoning      cost
-----  --------  -----  ------  ------  ------  ----------  ---------  --------
key_a  helpdesk      1       0      10       4           5          2  0.250000
key_b  helpdesk      2       0      20       8          10          4  0.250060
-----  --------  -----  ------  ------  ------  ----------  ---------  --------
total                3       0      30      12          15          6  0.500060
"""


def test_the_operator_sees_everybodys_use_with_totals(ratchet: Callable[..., str]) -> None:
    told = ratchet("--by", "key,model", "--since", "2026-01-01")

    assert told == TABLE.lstrip()


def test_the_operator_can_ask_for_one_tenant_and_for_json(ratchet: Callable[..., str]) -> None:
    told = json.loads(ratchet("--by", "arm", "--tenant", "default", "--since", "500d", "--json"))

    counts = {
        "calls": 1,
        "errors": 0,
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "reasoning_output_tokens": 2,
        "cost": 0.25,
    }
    assert told == [{"arm": "incumbent"} | counts, {"arm": None} | counts]


@pytest.mark.usefixtures("learner")
async def test_the_official_client_reads_what_its_calls_took(gateway: Gateway) -> None:
    key, secret = gateway.keys.create("plain", tenant="acme", at=datetime.now(UTC))

    def client(secret: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=secret, admin_api_key=secret)

    async with client(secret) as plain, client(gateway.key) as admin:
        for one, n in ((plain, 3), (admin, 2)):
            for _ in range(n):
                await one.chat.completions.create(
                    model=ALIAS, messages=[{"role": "user", "content": "hello"}]
                )
        since = int((datetime.now(UTC) - timedelta(days=1)).timestamp())
        own = await plain.admin.organization.usage.completions(start_time=since)
        tenants = await admin.admin.organization.usage.completions(
            start_time=since, group_by=["api_key_id"]
        )

    of_key, apart = results(own.model_dump()), results(tenants.model_dump())
    assert [one["num_model_requests"] for one in of_key] == [3]
    assert sum(one["num_model_requests"] for one in apart) == 5
    [mine] = [one for one in apart if one["api_key_id"] == key.id]
    counts = ("input_tokens", "output_tokens", "num_model_requests", "cost")
    assert [mine[name] for name in counts] == [of_key[0][name] for name in counts]
    assert mine["input_tokens"] > 0
    assert mine["output_tokens"] > 0
