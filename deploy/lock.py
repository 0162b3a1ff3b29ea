"""Resolve every extra but cuda to exact versions; `make lock` calls it."""

import json
import re
import subprocess
import sys
from pathlib import Path

EXTRAS = ("gateway", "learner", "train", "cpu", "demo", "dev")
# Text models need none of these, and they clash with a CPU torch.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}
OURS = "ratchet"


def main() -> None:
    """Print the lock: the head of the present one, then a pin a line."""
    lock = Path("requirements/cpu.lock")
    pip = (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet")
    command = (*pip, "--report", "-", f".[{','.join(EXTRAS)}]")
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    pins = {
        _name(row["metadata"]): row["metadata"]["version"] for row in json.loads(report)["install"]
    }
    head = [line for line in lock.read_text().splitlines() if line.startswith("#")]
    body = [f"{name}=={pins[name]}" for name in sorted(pins) if name not in LEFT_OUT | {OURS}]
    print("\n".join([*head, *body]))


def _name(metadata: dict[str, str]) -> str:
    return re.sub(r"[-_.]+", "-", metadata["name"]).lower()


if __name__ == "__main__":
    main()
