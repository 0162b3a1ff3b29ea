"""How long an alias takes to flip under load, and how long the command line takes to start.

    make bench [JSON=FILE]

The gateway is a real worker process with the real registry and spool; the engine behind it
answers at once, so that what is measured is ours. Every request is checked: it must carry the
adapter that was live when it was sent, or the one that went live while it ran.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.keys import KeyStore
from serving.artifact import Artifact
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.fakes.vllm import FakeVllm
from tests.integration.conftest import free_port

ALIAS = "helpdesk"
FLIPS = 20
WORKERS = 8
BETWEEN_S = 0.3
HELP_RUNS = 10


@dataclass
class Load:
    """Requests in closed loops, and what they brought back."""

    requests: int = 0
    failed: int = 0
    mixed: int = 0
    switched: dict[str, float] = field(default_factory=dict)
    """When each adapter first answered, and when the one before it last did."""

    async def run(self, session: aiohttp.ClientSession, url: str, stop: asyncio.Event) -> None:
        body = {"model": ALIAS, "messages": [{"role": "user", "content": "a b"}], "stream": True}
        while not stop.is_set():
            started = time.time()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                text = await response.text()
            self.requests += 1
            self.failed += response.status != 200 or "[DONE]" not in text
            models = {
                json.loads(line[6:])["model"]
                for line in text.splitlines()
                if line.startswith("data: {")
            }
            self.mixed += len(models) > 1
            for model in models:
                self.switched[model] = max(started, self.switched.get(model, 0))


async def measure() -> dict[str, float]:
    """Flip FLIPS times under load; figures in milliseconds and counts."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        url = f"sqlite:///{data / 'state.db'}"
        registry = Registry.open(url)
        registry.declare(ALIAS, "base", "base", datetime.now(UTC))
        _, key = KeyStore(open_database(url)).create("bench", tenant="t", at=datetime.now(UTC))
        async with FakeVllm("base") as vllm:
            port = free_port()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                env=os.environ
                | {
                    "GATEWAY_PORT": str(port),
                    "GATEWAY_DATABASE": url,
                    "GATEWAY_SPOOL": str(data / "spool"),
                    "GATEWAY_SUBJECT_KEY": str(data / "subject.key"),
                },
            )
            try:
                return await _flips(registry, vllm, f"http://127.0.0.1:{port}", key)
            finally:
                process.terminate()
                await process.wait()
                registry.close()


async def _flips(registry: Registry, vllm: FakeVllm, url: str, key: str) -> dict[str, float]:
    load, stop = Load(), asyncio.Event()
    flips_ms: list[float] = []
    _report(registry, vllm)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        await _until_up(session, url)
        workers = [asyncio.create_task(load.run(session, url, stop)) for _ in range(WORKERS)]
        await asyncio.sleep(BETWEEN_S)
        old = "base"
        for number in range(FLIPS):
            new, at = _promote(registry, vllm, f"{number:064x}")
            await asyncio.sleep(BETWEEN_S)
            # Over when the last request went to the old adapter; never before the commit.
            flips_ms.append(max(0.0, load.switched[old] - at) * 1000)
            old = new
        stop.set()
        await asyncio.gather(*workers)
    return {
        "flip_ms_median": statistics.median(flips_ms),
        "flip_ms_max": max(flips_ms),
        "flips": FLIPS,
        "requests": load.requests,
        "failed": load.failed,
        "mixed": load.mixed,
    }


def _promote(registry: Registry, vllm: FakeVllm, digest: str) -> tuple[str, float]:
    at = datetime.now(UTC)
    digest = digest[::-1]  # the served name takes the first characters
    version = registry.add(ALIAS, Artifact(digest, Path("/none"), 8, "base"), at=at, lineage={})
    registry.gate(ALIAS, version.version, verdict_id="bench", at=at)
    vllm.adapters[version.served_name] = "loaded"
    _report(registry, vllm)
    registry.promote(ALIAS, version.version, at=datetime.now(UTC))
    return version.served_name, time.time()


def _report(registry: Registry, vllm: FakeVllm) -> None:
    resident = frozenset(vllm.adapters)
    at = datetime.now(UTC)
    registry.report(EngineReport("e0", vllm.url, "base", EngineState.READY, resident, at))


async def _until_up(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with session.get(f"{url}/health/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


def help_ms() -> float:
    """The median time of ``ratchet --help``, in milliseconds."""
    command = [str(Path(sys.executable).with_name("ratchet")), "--help"]
    times = []
    for _ in range(HELP_RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = asyncio.run(measure()) | {"help_ms": help_ms()}
    for name, value in figures.items():
        print(f"{name:16} {value:10.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
