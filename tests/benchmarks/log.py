"""What a record costs the gateway, how fast the log takes it in, and how fast it answers.

    make bench-log [JSON=FILE] [ARGS="--rows 50000"]

The spool, the ingester and the store are the real ones, on the disk of the temporary folder;
the traffic is made up (tests/benchmarks/traffic.py).
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.context import Context
from gateway.errors import RecordFailed
from gateway.keys import Key
from gateway.log.record import Invocation, new_id
from gateway.log.spool import Durability, SpoolWriter
from gateway.recorder import Exchange, Recorder
from gateway.routing import Target
from gateway.surface import SURFACES
from tests.benchmarks.traffic import Traffic

CHAT = "/v1/chat/completions"
ROWS = 1_000_000
STREAMED_ROWS = 20_000
RECORDS = 20_000
PER_S = 200
SECONDS = 10
ROUNDS = 3
QUOTA = 1 << 40
RESERVE = 1 << 30

TARGETS = {
    "record_cpu_us": "<= 40",
    "record_p99_ms.interval": "< 0.2",
    "record_p99_ms.group": "< 5",
    "ingest_rows_per_s": ">= 10000",
    "bytes_per_row": "<= 600",
    "query_ms": "< 150",
}


def record_cpu_us(folder: Path, *, streamed: bool = False) -> float:
    """CPU of one record: made, encoded, written, and synced by the spool's thread."""
    calls = Traffic().calls(RECORDS // (5 if streamed else 1), streamed=streamed)
    answered = [_answered(call) for call in calls]
    spool = SpoolWriter(folder, "cpu", quota=QUOTA)
    recorder = Recorder(spool)
    gc.collect()
    started = time.process_time()
    for exchange, response in answered:
        recorder.record(exchange, _go_on, status=200, response=response, alone=True)
    used = time.process_time() - started
    spool.close()
    return used / len(answered) * 1e6


def record_ms(folder: Path, durability: Durability) -> list[float]:
    """How long each record held up its answer, at PER_S requests a second, sorted."""
    spool = SpoolWriter(folder, str(durability), durability=durability, quota=QUOTA)
    try:
        return sorted(uvloop.run(_at_a_steady_rate(Recorder(spool))))
    finally:
        spool.close()


async def _at_a_steady_rate(recorder: Recorder) -> list[float]:
    times: list[float] = []
    traffic = Traffic()

    def answer() -> None:
        # Made just before, as the gateway has its request and answer warm in the cache.
        ((exchange, response),) = (_answered(call) for call in traffic.calls(1))
        started = time.perf_counter()

        def go_on(record: Invocation, refused: RecordFailed | None) -> None:
            _go_on(record, refused)
            times.append((time.perf_counter() - started) * 1000)

        recorder.record(exchange, go_on, status=200, response=response, alone=True)

    gc.collect()
    gc.freeze()
    first = time.perf_counter()
    for number in range(PER_S * SECONDS):
        await asyncio.sleep(first + number / PER_S - time.perf_counter())
        answer()
    await recorder.drain()
    return times


def _go_on(_: Invocation, refused: RecordFailed | None) -> None:
    if refused is not None:
        raise refused


def _answered(call: Invocation) -> tuple[Exchange, bytes]:
    """What the gateway has in hand when an answer is complete."""
    body = bytes(call.request)
    belongs = Context(
        call.episode_id, None, None, call.trace_id, None, call.subject_id, train_ok=True
    )
    adapter = call.adapter
    invocation_id = new_id()
    exchange = Exchange(
        id=invocation_id,
        request_id=invocation_id.hex,
        ts=call.ts,
        key=Key("k", "bench", call.tenant),
        alias=call.request_model,
        operation="chat",
        parsed=SURFACES[CHAT].parse(body),
        body=body,
        context=belongs,
        target=Target(call.request_model, adapter or "", adapter, 1, "e0", "http://e0"),
        arm="incumbent",
        propensity=1.0,
        started=time.perf_counter(),
        pieces=[piece.encode() + b"\n\n" for piece in (call.sse or "").split("\n\n")[:-1]],
    )
    return exchange, bytes(call.response)


def disk_sync_ms(folder: Path) -> list[float]:
    """What the disk itself takes to sync a line, at the same rate: the floor of ``group``."""
    times: list[float] = []
    line = bytes(2700)
    with (folder / "floor").open("ab", buffering=0) as file:
        for _ in range(PER_S * 2):
            time.sleep(1 / PER_S)
            file.write(line)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return sorted(times)


def ingest(folder: Path, rows: int, *, streamed: bool = False) -> dict[str, Any]:
    """Spool ``rows`` calls and their feedback, and have another process take them in."""
    size = _spool(folder / "spool", rows, streamed=streamed)
    print(f"  {rows} calls spooled, {size / rows:.0f} bytes each with what was said of them")
    core = max(os.sched_getaffinity(0))
    command = [str(Path(__file__).with_name("log_ingest.py")), str(folder / "spool")]
    command += [str(folder / "log.duckdb"), str(core)]
    result: dict[str, Any] = {}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            result = json.loads(line)
            if "s" in result:
                print(f"  {result['rows']:9} rows  {result['s']:6.1f} s  {result['rss_mb']} MB")
    if child.returncode or "invocations" not in result:
        sys.exit(f"the ingesting process ended with {child.returncode}")
    if result["invocations"] != rows:
        sys.exit(f"{rows} calls were spooled, {result['invocations']} are in the log")
    return result


def _spool(folder: Path, rows: int, *, streamed: bool) -> int:
    traffic = Traffic()
    spool = SpoolWriter(folder, "w0", durability=Durability.NONE, quota=QUOTA, reserve=RESERVE)
    for number, call in enumerate(traffic.calls(rows, streamed=streamed), start=1):
        spool.append(call)
        for said in traffic.feedback(call):
            spool.append(said)
        if number % 250_000 == 0:
            print(f"  {number} calls made up")
    spool.close()
    return sum(segment.stat().st_size for segment in folder.glob("*.jsonl"))


def recording(folder: Path) -> dict[str, Any]:
    """The figures of the gateway's side."""
    figures: dict[str, Any] = {"record_p50_ms": {}, "record_p99_ms": {}}
    figures["record_cpu_us"] = record_cpu_us(folder / "cpu")
    figures["record_cpu_us_streamed"] = record_cpu_us(folder / "sse", streamed=True)
    for durability in (Durability.INTERVAL, Durability.GROUP):
        rounds = [record_ms(folder / durability, durability) for _ in range(ROUNDS)]
        for key, share in (("record_p50_ms", 0.5), ("record_p99_ms", 0.99)):
            figures[key][durability.value] = statistics.median(_at(share, one) for one in rounds)
        print(f"  {durability}: p99 {figures['record_p99_ms'][durability.value]:.3f} ms")
    figures["disk_sync_p99_ms"] = _at(0.99, disk_sync_ms(folder))
    return figures


def measure(rows: int) -> dict[str, Any]:
    """Every figure."""
    with tempfile.TemporaryDirectory(prefix="bench-log-") as name:
        print(f"records: {RECORDS} in a row, then {PER_S} a second")
        figures = recording(Path(name))
    for streamed, n in ((True, min(rows, STREAMED_ROWS)), (False, rows)):
        with tempfile.TemporaryDirectory(prefix="bench-log-") as name:
            print(f"ingest: {n} {'streamed ' if streamed else ''}calls")
            result = ingest(Path(name), n, streamed=streamed)
        if streamed:
            figures["ingest_rows_per_s_streamed"] = result["ingest_rows_per_s"]
        else:
            figures |= result
    return figures


def _at(share: float, times: Sequence[float]) -> float:
    return times[int(share * len(times))]


def _flat(figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", each) for key, each in value.items())
        elif not isinstance(value, list):
            yield name, value


def _target(name: str) -> str:
    return TARGETS.get(name) or TARGETS.get(name.partition(".")[0], "")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    figures = measure(arguments.rows)
    for name, value in _flat(figures):
        print(f"{name:28} {value:12.3f}   {_target(name)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
