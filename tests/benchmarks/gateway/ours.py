"""This gateway as the benchmark runs it: everything on."""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from gateway.keys import Budget, KeyStore, Limits, Window
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.benchmarks.gateway.tools import Process

ALIAS, BASE = "support-bot", "base-8b"
_PLENTY = 1_000_000_000


@contextmanager
def ours(
    port: int,
    upstream: int,
    core: int,
    *,
    tenants: Sequence[str] = ("bench",),
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[Process, *tuple[Mapping[str, str], ...]]]:
    """One worker, and the headers of a key for each tenant, with limits and a budget."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        url = f"sqlite:///{data / 'state.db'}"
        registry = Registry.open(url)
        registry.declare(ALIAS, BASE, BASE, datetime.now(UTC))
        headers = [{"Authorization": f"Bearer {_key(url, tenant)}"} for tenant in tenants]
        done = threading.Event()
        heart = threading.Thread(target=_beat, args=(registry, upstream, done))
        heart.start()
        try:
            argv, env = [sys.executable, "-m", "gateway"], {**_settings(data, url, port), **more}
            with Process(argv, core=core, env=env) as process:
                process.wait_for(f"http://127.0.0.1:{port}/health/ready", {})
                yield process, *headers
        finally:
            done.set()
            heart.join()
            registry.close()


def _key(url: str, tenant: str) -> str:
    """With every limit there is, none of which is reached."""
    engine = open_database(url)
    _, secret = KeyStore(engine).create(
        "bench",
        tenant=tenant,
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
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }


def _beat(registry: Registry, upstream: int, done: threading.Event) -> None:
    """What an agent beside the engine would say."""
    url = f"http://127.0.0.1:{upstream}"
    while True:
        at = datetime.now(UTC)
        registry.report(EngineReport("e0", url, BASE, EngineState.READY, frozenset(), at))
        if done.wait(2.0):
            return
