"""The log under kills, full disks, foreign locks and damage; ``make chaos-log`` is longer."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.log.cipher import KEY
from gateway.log.ingest import Ingester
from gateway.log.spool import Durability, SpoolWriter
from gateway.log.store import Store
from tests.chaos import full_log, full_spool, small_disk
from tests.chaos.corruption import trials
from tests.chaos.cut_streams import cut_streams
from tests.chaos.storm import SECRET, Campaign, Storm
from tests.chaos.victims import Victim
from tests.factories import invocation
from tests.integration.conftest import Gateway, free_port

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
CONFIG = "models: [{alias: helpdesk, base: base}]\ndata: .\n"
now = partial(datetime.now, UTC)


@pytest.fixture
def mounts(tmp_path: Path) -> list[str]:
    command = small_disk.unshare(tmp_path / "mount")
    if command is None:
        pytest.skip("a small disk needs `unshare -m` as root, or `unshare -Urm`: neither works")
    return command


@pytest.fixture
def locked(gateway: Gateway) -> Iterator["subprocess.Popen[str]"]:
    """Another process has the log's file, until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(gateway.data / "log.duckdb")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


@pytest.mark.parametrize(
    ("durability", "encrypted"), [(Durability.INTERVAL, False), (Durability.GROUP, True)]
)
async def test_kills_of_writers_gateway_and_owner_neither_lose_nor_double(
    tmp_path: Path, durability: Durability, encrypted: bool
) -> None:
    campaign = Campaign(durability, encrypted, 8, 1, free_port(), free_port(), pause_s=0.3)
    storm = Storm(campaign, tmp_path)

    verdict = await storm.run()

    assert sum(storm.killed.values()) == 8
    assert verdict.acked > 100
    assert verdict.lost == ()
    assert verdict.doubled == 0


def test_a_full_spool_refuses_or_counts_as_the_task_wants_and_recovers(
    tmp_path: Path, mounts: list[str]
) -> None:
    told = json.loads(small_disk.run(mounts, full_spool.__name__, tmp_path, str(free_port())))

    assert told["refusal"]["status"] == 503
    assert told["refusal"]["error"]["type"] == "server_error"
    assert told["refusal"]["error"]["code"] == "log_unavailable"
    assert told["refused"] > told["refused_in_log"] == 0
    assert told["loose_answered"] == full_spool.LOOSE_ASKED
    assert told["dropped_by_log"] == told["loose_answered"] - told["loose_in_log"] > 0
    assert told["recovered"]
    assert told["emptied"]
    assert told["verdict"]["lost"] == []
    assert told["verdict"]["doubled"] == 0


def test_a_full_disk_of_the_log_loses_nothing_and_its_owner_goes_on_by_itself(
    tmp_path: Path, mounts: list[str]
) -> None:
    told = json.loads(small_disk.run(mounts, full_log.__name__, tmp_path, "8", "16"))

    assert told["troubled"]
    assert told["drained"]
    assert told["survived"]
    assert told["verdict"]["lost"] == []
    assert told["verdict"]["doubled"] == 0


async def test_a_foreign_lock_holds_up_the_log_and_not_the_gateway(
    gateway: Gateway, locked: "subprocess.Popen[str]"
) -> None:
    config = gateway.data / "ratchet.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "learner", "--config", str(config)]
    refused = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )

    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
        answers = [await client.post("/v1/chat/completions", json=gateway.body()) for _ in range(3)]
    locked.communicate()
    with Victim("learner", *command[2:], output=gateway.data / "learner.log"):
        await _until_empty(gateway.data / "spool", gateway)

    assert refused.returncode == 1
    assert "log.duckdb belongs to another process" in refused.stderr
    assert str(locked.pid) in refused.stderr
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len(gateway.logged()) == 3


async def _until_empty(spool: Path, gateway: Gateway) -> None:
    """Until an owner has retired every segment; the gateway lets go of its own when it ends."""
    gateway.process.terminate()
    await asyncio.to_thread(gateway.process.wait)
    deadline = time.monotonic() + 30
    while await asyncio.to_thread(_segments, spool) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


def _segments(spool: Path) -> list[Path]:
    return list(spool.glob("*.jsonl"))


@pytest.mark.parametrize("environment", [{}, {KEY: SECRET}], ids=["plain", "encrypted"])
def test_damage_anywhere_takes_at_most_what_it_hit_and_is_named(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    tried = trials(tmp_path / "trials", number=4, seed=20, env=environment)

    assert [trial for trial in tried if not trial.is_clean] == []


async def test_every_stream_that_is_cut_is_recorded_once_with_what_it_received(
    tmp_path: Path,
) -> None:
    streams = await cut_streams(tmp_path, number=80, seed=3, port=free_port())

    assert streams.wrong == ()
    assert streams.recorded == streams.tried == 80
    assert 0 < streams.cut < 80


def test_a_segment_that_is_back_after_a_power_cut_is_not_taken_twice(tmp_path: Path) -> None:
    spool, aside = tmp_path / "spool", tmp_path / "aside"
    writer = SpoolWriter(spool, "w0", reserve=0)
    writer.append(invocation())
    writer.append(invocation())
    writer.close()
    shutil.copytree(spool, aside)
    with Store(tmp_path / "log.duckdb") as store:
        _drain(Ingester(store, spool, now=now))
    for segment in aside.glob("*.jsonl"):
        shutil.copy(segment, spool)

    with Store(tmp_path / "log.duckdb") as store:
        _drain(Ingester(store, spool, now=now))
        rows = store.rows("SELECT id FROM invocations")

    assert len(rows) == 2
    assert _segments(spool) == []


def test_a_segment_cut_below_what_was_ingested_is_named(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool, "w0", reserve=0)
    with Store(tmp_path / "log.duckdb") as store:
        ingester = Ingester(store, spool, now=now)
        writer.append(invocation())
        _drain(ingester)
        writer.close()
        [segment] = _segments(spool)
        os.truncate(segment, 10)

        _drain(ingester)

        incidents = store.rows("SELECT kind, segment FROM incidents")

    assert incidents == [{"kind": "quarantined", "segment": segment.name}]
    assert _segments(spool) == []


def _drain(ingester: Ingester) -> None:
    while ingester.run_once():
        pass
