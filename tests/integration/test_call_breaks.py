"""Faults of our own, planted at each step of a call: it ends with 500 and leaves nothing behind."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.call import Calls, Worker
from gateway.capacity import Capacity
from gateway.cors import Cors
from gateway.fleet import Fleet
from gateway.guards import Guards
from gateway.http.client import Pool
from gateway.http.exchange import Headers, Request
from gateway.keys import Key
from gateway.log.spool import SpoolWriter
from gateway.log.subject import SubjectKey
from gateway.prices import Prices
from gateway.providers import Providers
from gateway.recorder import Recorder
from gateway.telemetry import Telemetry
from gateway.telemetry.counters import Counts
from serving.registry import EngineReport, EngineState, Route, RoutingSnapshot
from tests.fakes.vllm import FakeVllm

NOW = datetime.now(UTC)
KEY = Key("key_1", "k", "acme")
ALIAS = "helpdesk"


class Front:
    """A client that waits until it has been told something final."""

    clogged = False

    def __init__(self) -> None:
        self.status: int | None = None
        self.said = b""
        self.is_broken = False
        self.over = asyncio.Event()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:  # noqa: ARG002
        self.status, self.said = status, body
        self.over.set()

    def begin(self, status: int, headers: Headers) -> None:  # noqa: ARG002
        self.status = status

    def write(self, data: bytes) -> None:
        self.said += data

    def end(self, data: bytes = b"") -> None:
        self.said += data
        self.over.set()

    def abort(self) -> None:
        self.is_broken = True
        self.over.set()


class Limits:
    """Hands out tickets and counts how they end."""

    remote = False

    def __init__(self) -> None:
        self.headers: Headers = []
        self.held = 0

    def admit(self, key: Key, *, tokens: int, cost: float) -> "Limits":  # noqa: ARG002
        self.held += 1
        return self

    def settle(self, tokens: int, cost: float) -> None:  # noqa: ARG002
        self.held = 0

    def cancel(self) -> None:
        self.held = 0


def worker(tmp_path: Path, url: str) -> Worker:
    engine = EngineReport("e0", url, "base", EngineState.READY, frozenset(), NOW)
    routes = {ALIAS: Route(ALIAS, "base", "base")}
    state: Any = SimpleNamespace(
        key=lambda _: KEY, snapshot=RoutingSnapshot(1, NOW, routes, (engine,), ())
    )
    limits: Any = Limits()
    return Worker(
        state=state,
        fleet=Fleet(now=asyncio.get_running_loop().time, seed=b"s"),
        pool=Pool(connections=8),
        providers=Providers({}, {}),
        capacity=Capacity(8),
        limiter=limits,
        guards=Guards({}, {}),
        prices=Prices({}, None),
        recorder=Recorder(SpoolWriter(tmp_path / "spool", "w0", reserve=0)),
        telemetry=Telemetry(Counts(since=0.0)),
        cors=Cors.of(()),
        subjects=SubjectKey.open(tmp_path / "subject.key"),
        models={},
        capture={},
        timeout_s=10.0,
        now=lambda: NOW,
    )


def raises(*_: object, **__: object) -> Any:
    raise RuntimeError("planted")


FAULTS: dict[str, Callable[[Worker], tuple[object, str]]] = {
    "asking the engine": lambda worker: (worker.pool, "post"),
    "counting the cost": lambda worker: (worker.prices, "of"),
    "recording": lambda worker: (worker.recorder, "record"),
    "writing the record": lambda worker: (worker.recorder._spool, "append"),
    "counting the call": lambda worker: (worker.telemetry, "finished"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_ours_leaves_nothing_behind(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    vllm: FakeVllm,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    stream: bool,
) -> None:
    one = worker(tmp_path, vllm.url)
    calls, front = Calls(one), Front()
    monkeypatch.setattr(*FAULTS[fault](one), raises)
    body = msgspec.json.encode(
        {"model": ALIAS, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    )

    calls.accept(Request("/v1/chat/completions", {}, body, 0.0), front)
    await asyncio.wait_for(front.over.wait(), 10)
    await asyncio.wait_for(calls.close(), 10)

    assert one.capacity.running == one.fleet.calls("e0") == one.limiter.held == 0  # type: ignore[union-attr]
    assert "planted" in caplog.text
    assert b"planted" not in front.said
    if fault != "counting the call":
        assert front.is_broken or b"server_error" in front.said
