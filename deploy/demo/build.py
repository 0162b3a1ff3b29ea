"""Builds the demo's world: ``python deploy/demo/build.py --out DIR``.

DIR/data gets traffic.jsonl, heldout.jsonl and tools.json, DIR/base the model directory. Each
folder appears whole, by a rename, and carries a BUILT marker with the digest of what it was
made from, so that a second run does nothing and a killed one is made good by the next.
Progress goes to stderr; the last line on stdout is JSON.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from schema import openai_tools
from world import Split, requests, row

MARKER = "BUILT"
SOURCES = ("schema.py", "phrasings.py", "world.py", "build.py")
BASE_SOURCES = ("schema.py", "phrasings.py", "world.py", "base.py")


def main() -> None:
    """Build what is missing, one builder at a time."""
    asked = _arguments()
    out: Path = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (out / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        data_is_new = _part(
            out / "data",
            key=_digest(SOURCES, asked.seed, asked.traffic, asked.held_out),
            make=lambda folder: write_data(folder, asked.seed, asked.traffic, asked.held_out),
        )
        base_is_new = _part(
            out / "base",
            key=_digest(BASE_SOURCES, asked.seed, asked.steps),
            make=lambda folder: write_base(folder, asked.seed, asked.steps),
        )
    report = {
        "data": str(out / "data"),
        "base": str(out / "base"),
        "cached": not (data_is_new or base_is_new),
        "seconds": round(time.monotonic() - began, 2),
    }
    print(json.dumps(report))


def write_data(folder: Path, seed: int, traffic: int, held_out: int) -> None:
    """The files of DIR/data."""
    for split, n in ((Split.TRAFFIC, traffic), (Split.HELD_OUT, held_out)):
        source = itertools.islice(requests(split, seed), n)
        rows = (row(split, number, request) for number, request in enumerate(source))
        _write_lines(folder / f"{split}.jsonl", rows)
    (folder / "tools.json").write_text(json.dumps(openai_tools(), indent=1) + "\n", "utf-8")


def write_base(folder: Path, seed: int, steps: int | None) -> None:
    """The files of DIR/base. The only place that loads torch, and only if it has to."""
    # Threads that wait must sleep: on a busy machine spinning ones take each other's cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from base import Recipe, train

    train(folder, seed=seed, recipe=Recipe() if steps is None else Recipe(steps=steps))


def _part(folder: Path, *, key: str, make: Callable[[Path], None]) -> bool:
    """Whether ``folder`` had to be made. It is there afterwards, whole and for ``key``."""
    marker = folder / MARKER
    if marker.is_file() and marker.read_text("utf-8") == key:
        return False
    print(f"building {folder}", file=sys.stderr)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    make(unfinished)
    (unfinished / MARKER).write_text(key, "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return True


def _digest(sources: Iterable[str], *parameters: object) -> str:
    digest = hashlib.sha256(repr(parameters).encode())
    for source in sources:
        digest.update(Path(__file__).with_name(source).read_bytes())
    return digest.hexdigest()


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the demo's data and its base model.")
    parser.add_argument("--out", type=Path, required=True, help="where data/ and base/ go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traffic", type=int, default=3000, help="rows of traffic.jsonl")
    parser.add_argument("--held-out", type=int, default=1000, help="rows of heldout.jsonl")
    parser.add_argument("--steps", type=int, help="training steps, fewer for a quick look")
    return parser.parse_args()


if __name__ == "__main__":
    main()
