"""This gateway as the benchmark runs it: everything on."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.keys import Budget, KeyStore, Limits, Window
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.benchmarks.gateway.tools import Process

ALIAS, BASE = "support-bot", "base-8b"
_PLENTY = 1_000_000_000


@contextmanager
def ours(port: int, upstream: int, core: int) -> Iterator[tuple[Process, Mapping[str, str]]]:
    """One worker: a key with limits and a budget, prices, durable log, spans of one call in 100."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        url = f"sqlite:///{data / 'state.db'}"
        registry = Registry.open(url)
        registry.declare(ALIAS, BASE, BASE, datetime.now(UTC))
        secret = _key(url)
        done = threading.Event()
        heart = threading.Thread(target=_beat, args=(registry, upstream, done))
        heart.start()
        try:
            with Process(
                [sys.executable, "-m", "gateway"], core=core, env=_settings(data, url, port)
            ) as process:
                process.wait_for(f"http://127.0.0.1:{port}/health/ready", {})
                yield process, {"Authorization": f"Bearer {secret}"}
        finally:
            done.set()
            heart.join()
            registry.close()


def _key(url: str) -> str:
    """With every limit there is, none of which is reached."""
    engine = open_database(url)
    _, secret = KeyStore(engine).create(
        "bench",
        tenant="bench",
        at=datetime.now(UTC),
        limits=Limits(requests_per_minute=_PLENTY, tokens_per_minute=_PLENTY, concurrency=100_000),
        budgets=(Budget(Window.DAY, tokens=_PLENTY * 100, money=1e9),),
    )
    engine.dispose()
    return secret


def _settings(data: Path, url: str, port: int) -> dict[str, str]:
    price = {"input": 0.1, "output": 0.4}
    return {
        "GATEWAY_PORT": str(port),
        "GATEWAY_DATABASE": url,
        "GATEWAY_SPOOL": str(data / "spool"),
        "GATEWAY_SUBJECT_KEY": str(data / "subject.key"),
        "GATEWAY_LEARNER": str(data / "learner.sock"),
        "GATEWAY_RUN": str(data / "run"),
        "GATEWAY_LIMITS": str(data / "limits"),
        "GATEWAY_CAPACITY": "4096",
        "GATEWAY_MODELS": json.dumps({ALIAS: {"price": price}}),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path[:0]]),
    }


def _beat(registry: Registry, upstream: int, done: threading.Event) -> None:
    """What an agent beside the engine would say."""
    url = f"http://127.0.0.1:{upstream}"
    while True:
        at = datetime.now(UTC)
        registry.report(EngineReport("e0", url, BASE, EngineState.READY, frozenset(), at))
        if done.wait(2.0):
            return
