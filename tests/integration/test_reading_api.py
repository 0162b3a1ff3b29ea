"""The learner's application in front of a real log: reading, stored completions, health."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fastapi import FastAPI

from gateway.log.ingest import Ingester
from gateway.log.spool import SpoolWriter
from learner.api import errors
from learner.api.app import create_app
from learner.api.client import ARROW
from learner.api.owner import Owner
from learner.jobs import TurnStore
from learner.log import open_erasures, open_log, open_upkeep
from learner.settings import load
from serving.database import open_database
from serving.registry import Registry
from tests.factories import NOW, invocation

CONFIG = """
models: [{alias: helpdesk, base: Qwen/Qwen3-4B}]
"""
COMPLETIONS = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class House:
    """The application, and the spool that a gateway worker would write to."""

    api: httpx.AsyncClient
    ingester: Ingester
    worker: SpoolWriter


@pytest.fixture
def reserve() -> int:
    """Bytes of disk that the log leaves free: parametrize it."""
    return 0


@pytest.fixture
async def house(tmp_path: Path, reserve: int) -> AsyncIterator[House]:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    config = load(tmp_path / "ratchet.yaml")
    with ExitStack() as stack:
        log = stack.enter_context(open_log(config))
        registry = Registry.open(config.database)
        stack.callback(registry.close)
        database = open_database(config.database)
        stack.callback(database.dispose)
        ingester = Ingester(log, config.spool, now=lambda: NOW, reserve=reserve)
        spool = SpoolWriter(config.spool, "learner", reserve=0)
        stack.callback(spool.close)
        worker = SpoolWriter(config.spool, "w0", reserve=0)
        stack.callback(worker.close)
        owner = Owner(log, ingester, spool, lambda: NOW)
        turns = TurnStore(database)
        erasures = open_erasures(config, owner, open_upkeep(config, owner, turns), registry)
        stack.callback(erasures.close)
        transport = httpx.ASGITransport(create_app(owner, erasures, turns))
        headers = {"x-ratchet-tenant": "default"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://learner", headers=headers
        ) as api:
            yield House(api, ingester, worker)


async def test_named_queries_are_listed_and_answered_as_json_or_arrow(house: House) -> None:
    house.worker.append(invocation(task="refund"))
    house.ingester.run_once()
    path, asked = "/log/queries/usage", {"by": "task", "since": "1d"}

    listed = (await house.api.get("/log/queries")).json()
    as_json = await house.api.get(path, params=asked)
    as_arrow = await house.api.get(path, params=asked, headers={"accept": ARROW})
    unknown = await house.api.get("/log/queries/nope")

    usage = next(one for one in listed if one["name"] == "usage")
    assert [one["name"] for one in usage["parameters"]] == [
        "by",
        "since",
        "tenant",
        "where",
        "limit",
    ]
    assert as_json.headers["content-type"] == "application/json"
    assert [(row["task"], row["calls"]) for row in as_json.json()] == [("refund", 1)]
    assert pa.ipc.open_stream(as_arrow.content).read_all()["calls"].to_pylist() == [1]
    assert unknown.status_code == 400
    assert unknown.json()["error"]["code"] == "bad_query"


async def test_what_was_just_answered_is_read_and_what_was_changed_is_read_changed(
    house: House,
) -> None:
    call = invocation(stored=True)
    house.worker.append(call)
    name = f"chatcmpl-{call.id.hex}"

    listed = (await house.api.get(COMPLETIONS)).json()
    changed = (await house.api.post(f"{COMPLETIONS}/{name}", json={"metadata": {"a": "b"}})).json()
    found = (await house.api.get(COMPLETIONS, params={"metadata[a]": "b"})).json()
    emptied = (await house.api.post(f"{COMPLETIONS}/{name}", json={"metadata": None})).json()
    gone = (await house.api.delete(f"{COMPLETIONS}/{name}")).json()
    missing = await house.api.get(f"{COMPLETIONS}/{name}")
    rows = (await house.api.get("/log/queries/tail")).json()

    assert listed["data"][0]["id"] == listed["first_id"] == listed["last_id"] == name
    assert changed["metadata"] == {"a": "b"}
    assert [one["id"] for one in found["data"]] == [name]
    assert emptied["metadata"] == {}
    assert gone == {"object": "chat.completion.deleted", "id": name, "deleted": True}
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    assert [row["input_tokens"] for row in rows] == [3], "the row stays for the bill"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "nothing"}, "after"),
        ({f"metadata[k{n}]": "v" for n in range(17)}, "metadata"),
    ],
)
async def test_a_wrong_list_request_is_refused_by_its_parameter(
    house: House, query: dict[str, str], param: str
) -> None:
    refused = await house.api.get(COMPLETIONS, params=query)

    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    "metadata",
    [{f"k{n}": "v" for n in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "text"],
)
async def test_metadata_keeps_to_openais_limits(house: House, metadata: Any) -> None:
    call = invocation(stored=True)
    house.worker.append(call)

    path = f"{COMPLETIONS}/chatcmpl-{call.id.hex}"
    refused = await house.api.post(path, json={"metadata": metadata})

    assert refused.status_code == 400
    assert refused.json()["error"]["param"].startswith("metadata")


async def test_without_a_tenant_nothing_is_told(house: House) -> None:
    del house.api.headers["x-ratchet-tenant"]

    refused = await house.api.get(COMPLETIONS)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "header.x-ratchet-tenant"


@pytest.mark.parametrize("reserve", [1 << 62])
async def test_a_log_in_trouble_says_so_and_stays_readable(house: House) -> None:
    house.worker.append(invocation(stored=True))
    stop = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(house.ingester.run, stop, every_s=0.01))
    await until(lambda: house.ingester.trouble is not None)

    health = (await house.api.get("/health")).json()
    completions = await house.api.get(COMPLETIONS)
    stop.set()
    await running

    assert "must stay free" in health["trouble"]
    assert health["invocations"] == 0
    assert completions.status_code == 503
    assert completions.headers["retry-after"] == "2"
    assert completions.json()["error"]["code"] == "log_unavailable"


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.01)


async def test_what_nobody_thought_of_is_told_in_the_envelope_too() -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    def broken() -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://learner") as client:
        failed = await client.get("/")

    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "internal_error"
