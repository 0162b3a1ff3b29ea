"""What a gateway costs, side by side with its peers, in one run.

    make bench-gateway [JSON=FILE] [ARGS="--install | --only ratchet --only vllm-router"]

The gateway is pinned to one core, mock upstream and load generator to another. CPU is user and
system time of the gateway's whole process tree over answered requests (or events of streams),
which a noisy machine disturbs least. Every target is measured in turn in each round; figures are
medians of the rounds. Ours runs with the log, limits, budget, prices and metrics on.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.gateway.peers import Target, install, targets
from tests.benchmarks.gateway.tools import Load, Process, RequestsFailed, compiled
from tests.integration.conftest import free_port

GAP_US = 10_000
"""Between two events of one stream."""
LOW_RATE = 100
_WARM_S = 1.5
_COLUMNS = (
    ("cpu_us_per_request", "CPU us/request", "{:,.0f}"),
    ("rps_one_core", "requests/s", "{:,.0f}"),
    ("cpu_us_per_event", "CPU us/event", "{:,.1f}"),
    ("added_p50_ms", "added p50 ms", "{:.3f}"),
    ("added_p99_ms", "added p99 ms", "{:.3f}"),
    ("rss_mb", "RSS MB", "{:,.0f}"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--install", action="store_true", help="make the peers' environments")
    parser.add_argument("--only", action="append", help="measure these only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    told = parser.parse_args()
    if told.install:
        install()
        return
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("this needs two cores: one for the gateway, one for its two ends")
    found, missing = targets()
    for line in missing:
        print(f"left out: {line}")
    chosen = [target for target in found if not told.only or target.name in told.only]
    table = measure(chosen, rounds=told.rounds, seconds=told.seconds)
    show(table)
    if told.json:
        told.json.write_text(json.dumps({"targets": table}, indent=1))


def measure(chosen: list[Target], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row per target: medians over the rounds."""
    seen: dict[str, list[dict[str, float]]] = {target.name: [] for target in chosen}
    with tempfile.TemporaryDirectory() as folder:
        mock, load = compiled(Path(folder))
        upstream = free_port()
        with Process([mock, str(upstream), str(GAP_US)], core=1) as running:
            running.wait_for(f"http://127.0.0.1:{upstream}/health", {})
            for number in range(rounds):
                direct = _latency(Load(load, core=1), upstream, {}, seconds)
                for target in chosen:
                    figures = _once(target, Load(load, core=1), upstream, seconds, direct)
                    seen[target.name].append(figures)
                    print(f"round {number + 1}/{rounds} {target.name}: {_line(figures)}")
    return [
        {"name": target.name, "version": target.version, "logs": target.logs}
        | {key: _median(one[key] for one in seen[target.name]) for key, *_ in _COLUMNS}
        for target in chosen
    ]


def _median(values: Iterable[float]) -> float | None:
    middle = statistics.median(values)
    return None if math.isnan(middle) else middle


def _once(
    target: Target, load: Load, upstream: int, seconds: float, direct: tuple[float, float]
) -> dict[str, float]:
    port = free_port()
    with target.start(port, upstream, 0) as (process, headers):
        load.run(port, "plain.json", headers, connections=target.connections, seconds=_WARM_S)
        before = process.cpu_s()
        plain = load.run(
            port, "plain.json", headers, connections=target.connections, seconds=seconds
        )
        plain_s = process.cpu_s() - before
        p50, p99 = _latency(load, port, headers, seconds)
        stream = partial(load.run, port, "stream.json", headers, connections=target.streams)
        per_event = _streamed(process, stream, seconds)
        return {
            "cpu_us_per_request": plain_s / plain["ok"] * 1e6,
            "rps_one_core": plain["rps"],
            "cpu_us_per_event": per_event,
            "added_p50_ms": (p50 - direct[0]) / 1000,
            "added_p99_ms": (p99 - direct[1]) / 1000,
            "rss_mb": process.rss_mb(),
        }


def _streamed(process: Process, run: Callable[..., dict[str, Any]], seconds: float) -> float:
    """CPU per event, in microseconds; NaN for a peer that cannot stream at all."""
    try:
        run(seconds=_WARM_S)
        before = process.cpu_s()
        events = run(seconds=seconds)["events"]
    except RequestsFailed as error:
        print(f"it does not stream: {error}")
        return math.nan
    return (process.cpu_s() - before) / events * 1e6


def _latency(
    load: Load, port: int, headers: Mapping[str, str], seconds: float
) -> tuple[float, float]:
    """Median and 99th percentile at a low, fixed rate, in microseconds."""
    figures = load.run(port, "plain.json", headers, connections=8, seconds=seconds, rate=LOW_RATE)[
        "lat_us"
    ]
    return figures["p50"], figures["p99"]


def _line(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{title} {form.format(figures[key])}" for key, title, form in _COLUMNS)


def _cell(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)


def show(table: list[dict[str, Any]]) -> None:
    """The table, and ours as a ratio of each peer's."""
    print(f"\n{'':16}{'logs':>6}" + "".join(f"{title:>16}" for _, title, _ in _COLUMNS))
    for row in table:
        cells = "".join(f"{_cell(form, row[key]):>16}" for key, _, form in _COLUMNS)
        print(f"{row['name']:16}{'yes' if row['logs'] else 'no':>6}{cells}")
    mine = next((row for row in table if row["name"] == "ratchet"), None)
    for row in table if mine else ():
        if row is not mine:
            ratios = {key: mine[key] / (row[key] or math.nan) for key, *_ in _COLUMNS[:3]}
            print(
                f"ratchet / {row['name']}: "
                + ", ".join(f"{title} {ratios[key]:.3f}" for key, title, _ in _COLUMNS[:3])
            )


if __name__ == "__main__":
    main()
