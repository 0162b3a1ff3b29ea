"""The whole loop on the real stack, in minutes: serve, learn, swap under load, survive kills."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from gateway.log.cipher import KEY
from learner.api.client import LearnerClient, LearnerDown
from learner.cli.demo.traffic import Clients, Flow
from learner.cli.demo.world import ALIAS, World, build_world, furnish, load_world
from learner.cli.house import House
from learner.settings import RatchetConfig, load
from serving.registry import Registry
from tests.integration.conftest import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
DEMONSTRATIONS = 100
HELD_OUT = 120
SHORT = {"sft": {"epochs": 6, "until_loss": 0.001}, "grpo": {"steps": 3}}
"""Demonstrations are learnt to the end: what that gains, 120 samples see every time."""


@pytest.fixture(scope="module")
def world() -> World:
    """Real people's requests where they are at hand, else the demo's own help desk."""
    data, base = SHARED / "data" / "snips", SHARED / "models" / "snips-base"
    if data.is_dir() and base.is_dir():
        return load_world(data, base)
    return build_world(ROOT / "data" / "demo" / "world")


class Loop:
    """A running house and its clients."""

    def __init__(self, house: House, world: World) -> None:
        self.house = house
        self.world = world
        self.config = house.config
        self.registry = Registry.open(self.config.database)
        self.learner = LearnerClient(self.config.learner_socket)
        self.clients = Clients(house.url, house.secret or "", ALIAS, world.tools)

    async def demonstrate(self, count: int) -> None:
        samples = self.world.traffic[:count]
        answers = await self.clients.ask_all(samples, concurrency=8)
        for answer, sample in zip(answers, samples, strict=True):
            assert answer.error is None
            await self.clients.demonstrate(answer, sample.reference_answer)

    def turn(self) -> dict[str, Any]:
        """The newest turn; nothing while there is none or the learner is away."""
        try:
            turns = self.learner.turns(1)
        except LearnerDown:
            return {}
        return turns[0] if turns else {}

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.1)

    def pid(self, name: str) -> int:
        return int(json.loads((self.config.data / "run" / f"{name}.pid").read_text())["pid"])

    def live(self) -> str | None:
        version = self.registry.live(ALIAS)
        return version.served_name if version else None

    async def close(self) -> None:
        await self.clients.close()
        self.registry.close()


def short_config(home: Path, world: World) -> tuple[RatchetConfig, Path]:
    small = World(world.traffic, world.held_out[:HELD_OUT], world.tools, world.base)
    path = furnish(home, small, demonstrations=DEMONSTRATIONS, port=free_port())
    raw = yaml.safe_load(path.read_text())
    raw["serving"]["port"], raw["workbench"]["port"] = free_port(), free_port()
    raw["policies"][0] |= {"training": SHORT, "capture": {"token_ids": True, "logprobs": True}}
    raw["models"][0]["price"] = {"input": 1, "output": 4}
    raw["log"] = {"durability": "group"}
    path.write_text(yaml.safe_dump(raw))
    return load(path), path


@pytest.fixture
async def loop(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Loop]:
    monkeypatch.setenv(KEY, "5a" * 32)
    config, path = short_config(tmp_path, world)
    async with House(config, path) as house:
        await house.ready()
        loop = Loop(house, world)
        yield loop
        await loop.close()


async def test_the_loop_turns_under_traffic_and_survives_kills(loop: Loop) -> None:
    await loop.demonstrate(DEMONSTRATIONS)
    flow = Flow(loop.clients, loop.world.traffic[DEMONSTRATIONS:])
    flow.workers, flow.pause_s = 2, 0.2
    flow.start()

    # The learner is killed in the middle of training: its trainer dies with it, the turn is
    # resumed by the next learner, and no alias moves without a verdict.
    await loop.until(lambda: loop.turn().get("phase") == "sft", within_s=60)
    trainer = await _trainer(loop)
    psutil.Process(loop.pid("learner")).send_signal(signal.SIGKILL)
    await loop.until(lambda: not psutil.pid_exists(trainer), within_s=30)
    assert loop.live() is None
    await loop.until(lambda: loop.turn().get("attempt") == 2, within_s=60)

    # The swap happens under full streaming load.
    await loop.until(lambda: loop.turn().get("phase") == "evaluate", within_s=400)
    flow.workers, flow.pause_s = 4, 0.0
    await loop.until(lambda: loop.turn().get("state") != "running", within_s=300)
    turn = loop.turn()
    assert turn["state"] == "promoted", turn["verdict"] or turn["error"]
    adapter = loop.live()
    assert adapter is not None
    await asyncio.sleep(2)
    await flow.stop()

    _nobody_was_failed_or_mixed(loop, {loop.world.base.name, adapter})
    _the_log_agrees(loop)
    _the_log_knows_more_than_clients_see(loop)
    _nothing_is_readable_at_rest(loop)
    _the_verdict_is_whole(turn["verdict"])
    await _vllm_dies_and_the_base_never_stands_in(loop, adapter)


async def _trainer(loop: Loop) -> int:
    """The process id of the training job."""
    found: list[int] = []

    def look() -> bool:
        children = psutil.Process(loop.pid("learner")).children(recursive=True)
        found[:] = [child.pid for child in children if "learner.training" in child.cmdline()]
        return bool(found)

    await loop.until(look, within_s=60)
    return found[0]


def _nobody_was_failed_or_mixed(loop: Loop, models: set[str]) -> None:
    answers = loop.clients.ledger.answers
    assert [answer.error for answer in answers if answer.error] == []
    assert [answer for answer in answers if answer.mixed] == []
    assert set(loop.clients.ledger.by_model()) == models


def _the_log_agrees(loop: Loop) -> None:
    expected = loop.clients.ledger.by_model()
    deadline = time.monotonic() + 10
    sql = "select adapter, count(*) as n from invocations group by 1"
    while True:
        rows = loop.learner.select(sql).to_pylist()
        logged = {row["adapter"] or loop.world.base.name: row["n"] for row in rows}
        if logged == expected or time.monotonic() > deadline:
            break
    assert logged == expected


def _the_log_knows_more_than_clients_see(loop: Loop) -> None:
    """Every answer has its token ids and log-probabilities in the log, and its cost."""
    sql = """
    select count(*) as n, count(*) filter (cost > 0 and
      len(response->'$.choices[0].token_ids') > 2 and
      len(response->'$.choices[0].logprobs.content') > 2) as whole
    from invocations where status = 200 and error_type is null
    """
    (row,) = loop.learner.select(sql).to_pylist()
    assert row["n"] == row["whole"] > 0


def _nothing_is_readable_at_rest(loop: Loop) -> None:
    """Not in the log, nor in the spool, nor in the dataset that was just learnt from."""
    words = {sample.messages[-1]["content"].encode() for sample in loop.world.traffic[:100]}
    data = loop.config.data
    files = [data / "log.duckdb", *data.glob("log.duckdb.wal"), *data.glob("datasets/*")]
    files += [file for file in data.glob("spool/**/*") if file.is_file()]
    assert list(data.glob("datasets/*.parquet"))
    for file in files:
        content = file.read_bytes()
        assert not content.startswith(b"PAR1"), file
        assert not [word for word in words if word in content], file


def _the_verdict_is_whole(verdict: dict[str, Any]) -> None:
    assert verdict["decision"] == "promote"
    assert verdict["interval"][0] > 0
    assert verdict["mde"] > 0
    assert set(verdict["held_out"]) == {"base", "sft", "rft"}
    assert verdict["held_out"]["sft"]["reward"] > verdict["held_out"]["base"]["reward"]


async def _vllm_dies_and_the_base_never_stands_in(loop: Loop, adapter: str) -> None:
    """503 with Retry-After while it is away, then the same adapter again."""
    before = len(loop.clients.ledger.answers)
    psutil.Process(loop.pid(f"engine-{loop.world.base.name}-0")).send_signal(signal.SIGKILL)
    body = {"model": ALIAS, "messages": list(loop.world.traffic[0].messages), "max_tokens": 5}
    headers = {"authorization": f"Bearer {loop.house.secret}"}
    statuses: set[int] = set()
    models: set[str] = set()
    async with httpx.AsyncClient(headers=headers, timeout=60) as client, asyncio.timeout(180):
        while not models:
            response = await client.post(f"{loop.house.url}/chat/completions", json=body)
            statuses.add(response.status_code)
            if response.status_code == 200:
                answered = response.json()
                models.add(answered["model"])
                assert answered["choices"][0].get("token_ids") is None
                assert answered["choices"][0].get("logprobs") is None
            else:
                assert "retry-after" in response.headers
            await asyncio.sleep(0.1)
    answers = await loop.clients.ask_all(loop.world.traffic[:10], concurrency=4)
    assert statuses == {200, 503}
    assert models == {adapter}
    assert {model for answer in answers for model in answer.models} == {adapter}
    assert len(loop.clients.ledger.answers) == before + 10


async def test_ctrl_c_lets_running_answers_finish(tmp_path: Path, world: World) -> None:
    config, path = short_config(tmp_path, world)
    ratchet = Path(sys.executable).with_name("ratchet")
    up = await asyncio.create_subprocess_exec(
        ratchet, "up", "--config", path, stdout=asyncio.subprocess.PIPE
    )
    assert up.stdout is not None
    secret = url = ""
    async with asyncio.timeout(240):
        while not url:
            line = (await up.stdout.readline()).decode()
            assert line, "ratchet up ended early"
            secret = line.split()[-1] if "API key" in line else secret
            url = line.split("base_url ")[1].split(",")[0] if "base_url" in line else ""

    body = {
        "model": ALIAS,
        "messages": list(world.traffic[0].messages),
        "stream": True,
        "max_tokens": 300,
        "ignore_eos": True,
    }
    headers = {"authorization": f"Bearer {secret}"}
    lines: list[str] = []
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as client,
        client.stream("POST", f"{url}/chat/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if not lines:
                up.send_signal(signal.SIGINT)
            lines.append(line)

    said, _ = await asyncio.wait_for(up.communicate(), 90)
    assert "data: [DONE]" in lines
    assert up.returncode == 0
    assert said.decode().rstrip().endswith("stopped")
    assert not [p for p in psutil.process_iter(["cmdline"]) if _ours(p, config)]


def _ours(process: psutil.Process, config: RatchetConfig) -> bool:
    signs = (str(config.data), str(config.serving.port), str(config.workbench.port))
    return any(sign in word for word in process.info["cmdline"] or () for sign in signs)
