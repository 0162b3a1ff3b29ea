"""The data a demo runs on, and the configuration it is run with."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from learner.dataset.formats import read_rft
from learner.dataset.sample import Sample
from learner.errors import ConfigError, DatasetError

ALIAS = "assistant"
BUILDER = Path("deploy/demo/build.py")
MAX_HELD_OUT = 400


@dataclass(frozen=True, slots=True)
class World:
    """Requests with their right answers, the tools to call, and a base model."""

    traffic: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    tools: tuple[dict[str, Any], ...]
    base: Path


def load_world(data: Path, base: Path) -> World:
    """Read the three files. Raises ConfigError, DatasetError."""
    for name in ("traffic.jsonl", "heldout.jsonl", "tools.json"):
        if not (data / name).is_file():
            raise ConfigError(f"{data} has no {name}")
    if not (base / "config.json").is_file():
        raise ConfigError(f"{base} has no config.json: it is no model in Hugging Face's layout")
    try:
        tools = json.loads((data / "tools.json").read_text())
    except ValueError as error:
        raise DatasetError(f"{data / 'tools.json'}: {error}") from error
    return World(
        traffic=tuple(read_rft(data / "traffic.jsonl")),
        held_out=tuple(read_rft(data / "heldout.jsonl")),
        tools=tuple(tools),
        base=base,
    )


def build_world(out: Path) -> World:
    """The demo's own help desk, built or found built. Raises ConfigError when it cannot be."""
    if not BUILDER.is_file():
        raise ConfigError(
            f"{BUILDER} is not here: run this in a clone of the project, or give --data and --base"
        )
    command = (sys.executable, str(BUILDER), "--out", str(out))
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"the demo's world could not be built: {' '.join(command)}") from error
    return load_world(out / "data", out / "base")


def furnish(home: Path, world: World, *, demonstrations: int, port: int) -> Path:
    """An empty data folder, the held-out file and ratchet.yaml; the path of the latter."""
    shutil.rmtree(home / "data", ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "heldout.jsonl").open("w") as file:
        for sample in world.held_out:
            row = {
                "id": sample.id,
                "messages": sample.messages,
                "tools": world.tools,
                "reference_answer": sample.reference_answer,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    path = home / "ratchet.yaml"
    path.write_text(yaml.safe_dump(_config(world, demonstrations, port), sort_keys=False))
    return path


def _config(world: World, demonstrations: int, port: int) -> dict[str, Any]:
    engine = {
        "max_loras": 4,
        "max_cpu_loras": 16,
        "args": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"},
    }
    return {
        "data": "data",
        "gateway": {"port": port},
        "serving": {"port": port + 100, **engine},
        "workbench": {"port": port + 200, **engine},
        "models": [{"alias": ALIAS, "base": str(world.base.resolve())}],
        "policies": [
            {
                "alias": ALIAS,
                "reward": {
                    "type": "tool_call",
                    "weights": {"parses": 0.1, "name": 0.3, "arguments": 0.6},
                },
                "when": {"new_samples": demonstrations},
                "held_out": "heldout.jsonl",
                "gate": {"min_gain": 0.02, "alpha": 0.05, "max_samples": MAX_HELD_OUT},
            }
        ],
    }
