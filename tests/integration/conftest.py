"""A gateway worker as its own process, in front of an in-process fake vLLM."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.keys import EVERYTHING, KeyStore
from gateway.log.cipher import Cipher
from gateway.log.ingest import Ingester
from gateway.log.record import decode
from gateway.log.store import Store
from learner.api.client import LearnerClient, LearnerDown
from serving.artifact import Artifact
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.fakes.vllm import FakeVllm
from tests.workers import Worker

ALIAS = "helpdesk"


def pytest_asyncio_loop_factories(
    item: pytest.Function,
) -> "dict[str, Callable[[], asyncio.AbstractEventLoop]]":
    """A module's tests run on each of its ``LOOPS``; on asyncio's own where it names none."""
    return getattr(item.module, "LOOPS", {"asyncio": asyncio.new_event_loop})


LEARNER = f"""
data: .
models: [{{alias: {ALIAS}, base: Qwen/Qwen3-4B}}]
log: {{reserve: 0}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Gateway:
    """A running worker and the state it reads."""

    url: str
    key: str
    registry: Registry
    keys: KeyStore
    vllm: FakeVllm
    data: Path
    process: Worker
    environment: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def body(self, text: str = "hello", **more: object) -> dict[str, object]:
        return {"model": ALIAS, "messages": [{"role": "user", "content": text}]} | more

    def report(self, *adapters: str, state: EngineState = EngineState.READY) -> None:
        """The engine says what it holds."""
        self.registry.report(
            EngineReport("e0", self.vllm.url, "base", state, frozenset(adapters), datetime.now(UTC))
        )

    def until_ready(self, url: str | None = None) -> None:
        """Wait for this worker or another, with an engine that does not fall silent meanwhile."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.report()
            try:
                if httpx.get(f"{url or self.url}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it is starting
            time.sleep(0.05)
        raise TimeoutError(f"no gateway at {url or self.url}")

    def promote(self, digest: str) -> str:
        """Make an adapter live, the way the learner and the agent do; its served name."""
        artifact = Artifact(digest * 16, self.data / digest, 8, "base")
        at = datetime.now(UTC)
        added = self.registry.add(ALIAS, artifact, at=at, lineage={})
        self.registry.gate(ALIAS, added.version, verdict_id="v", at=at)
        self.vllm.adapters[added.served_name] = str(added.path)
        resident = {version.served_name for version in self.registry.versions(ALIAS)}
        self.report(*resident)
        self.registry.promote(ALIAS, added.version, at=at)
        return added.served_name

    def spooled(self, cipher: Cipher | None = None) -> list[Any]:
        """The records in the spool, as the gateway has written them."""
        segments = sorted((self.data / "spool").glob("*.jsonl"))
        lines = b"".join(segment.read_bytes() for segment in segments).splitlines()
        return [decode(line, cipher) for line in lines]

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """The answer to one request, as it is."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.post(path, json=body, headers=self.headers | headers)

    def logged(self, sql: str = "SELECT * FROM invocations ORDER BY id") -> list[dict[str, object]]:
        """The log's answer, after ingesting what is in the spool now."""
        with Store(self.data / "log.duckdb") as store:
            ingester = Ingester(store, self.data / "spool", now=lambda: datetime.now(UTC))
            while ingester.run_once():
                pass
            return store.rows(sql)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
async def vllm() -> AsyncIterator[FakeVllm]:
    async with FakeVllm("base") as fake:
        yield fake


@pytest.fixture
def settings() -> dict[str, object]:
    """What a test has the gateway told beyond the usual: parametrize it."""
    return {}


@pytest.fixture
def gateway(tmp_path: Path, vllm: FakeVllm, settings: dict[str, object]) -> Iterator[Gateway]:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    registry = Registry.open(url)
    registry.declare(ALIAS, "base", "base", datetime.now(UTC))
    database = open_database(url)
    keys = KeyStore(database)
    _, secret = keys.create("test", tenant="acme", at=datetime.now(UTC), scopes=EVERYTHING)
    port = free_port()
    environment = os.environ | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_DATABASE": url,
        "GATEWAY_SPOOL": str(tmp_path / "spool"),
        "GATEWAY_SPOOL_RESERVE": "0",
        "GATEWAY_SUBJECT_KEY": str(tmp_path / "subject.key"),
        "GATEWAY_RUN": str(tmp_path / "run"),
        "GATEWAY_LIMITS": str(tmp_path / "run" / "limits"),
        "GATEWAY_LEARNER": str(tmp_path / "run" / "learner.sock"),
        "GATEWAY_MAX_BODY_BYTES": "100000",
    }
    for name, value in settings.items():
        environment[name] = value if isinstance(value, str) else json.dumps(value)
    with Worker(environment) as process:
        gateway = Gateway(
            f"http://127.0.0.1:{port}",
            secret,
            registry,
            keys,
            vllm,
            tmp_path,
            process,
            environment,
        )
        gateway.until_ready()
        yield gateway
    registry.close()
    database.dispose()


@pytest.fixture
def learner(gateway: Gateway) -> Iterator[None]:
    """The owner of the log that the gateway's requests are recorded for."""
    config = gateway.data / "ratchet.yaml"
    config.write_text(LEARNER)
    client = LearnerClient(gateway.data / "run" / "learner.sock")
    command = [sys.executable, "-m", "learner", "--config", str(config)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                client.turns()
                break
            except LearnerDown:
                time.sleep(0.05)
        gateway.until_ready()
        yield
        process.terminate()
