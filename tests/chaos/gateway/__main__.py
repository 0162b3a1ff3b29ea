"""The storm over the gateway: what it meters is what its engines sent, whatever happens.

    make chaos-gateway [JSON=FILE] [ARGS="--requests 1000000"]

Prints what it counted; ends with 1 on any difference.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from tests.chaos.gateway.storm import Weather
from tests.chaos.gateway.trial import trial

PORTS = range(29500, 29504)
GROWTH_MB = 8.0
"""What a worker may grow by between a quarter of the first storm and its end."""
WITH_KILLS = 0.15
"""How many of the requests are made while workers are killed."""


def grown(figures: dict[str, Any]) -> list[str]:
    """Workers whose memory was not flat."""
    return [
        f"{worker} grew from {warm} to {last} MB"
        for worker, (warm, last) in figures["storms"][0]["memory_mb"].items()
        if last - warm > GROWTH_MB
    ]


def table(figures: dict[str, Any]) -> str:
    """The figures, a line each."""
    lines = []
    for number, storm in enumerate(figures["storms"], 1):
        lines += [f"storm {number}"]
        lines += [f"  {name:<18} {_line(value)}" for name, value in storm.items()]
    lines += ["calls", *(f"  {name:<26} {value}" for name, value in figures["calls"].items())]
    lines += [f"problems: {len(figures['problems'])}", *figures["problems"][:40]]
    return "\n".join(lines) + "\n"


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {what}" for name, what in value.items()) or "-"
    return str(value)


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.gateway")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--requests", type=int, default=240_000)
    parser.add_argument("--folder", type=Path, help="kept, where it is told")
    told = parser.parse_args()
    killing = int(told.requests * WITH_KILLS)
    weathers = [
        Weather(told.requests - killing, engine_kills_s=2.0),
        Weather(killing, engine_kills_s=3.0, worker_kills_s=2.0),
    ]
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        folder = told.folder or Path(place)
        storms = trial(folder, ports=PORTS, seed=told.seed, weathers=weathers)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(storms)
    figures["problems"] += grown(figures)
    sys.stdout.write(table(figures))
    if told.json:
        told.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(bool(figures["problems"]))


if __name__ == "__main__":
    main()
