"""Import and export as processes: beside a learner that owns the log, and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from learner.api.client import LearnerClient, LearnerDown

RATCHET = Path(sys.executable).with_name("ratchet")
ROWS = 2500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratchet.yaml").write_text("models: [{alias: helpdesk, base: base}]\n")
    return tmp_path


@pytest.fixture
def learner(folder: Path) -> Iterator[LearnerClient]:
    command = [sys.executable, "-m", "learner", "--config", str(folder / "ratchet.yaml")]
    client = LearnerClient(folder / "data" / "run" / "learner.sock")
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                client.turns()
                break
            except LearnerDown:
                time.sleep(0.05)
        yield client
        process.terminate()


def ratchet(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"RATCHET_CONFIG": str(folder / "ratchet.yaml")}
    command = [RATCHET, "log", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def flywheel(path: Path, n: int) -> None:
    """A file of NVIDIA's rows."""
    row = {"timestamp": 1, "workload_id": "w", "client_id": "c", "response": {"choices": []}}
    with path.open("w") as file:
        for number in range(n):
            asked = {"messages": [{"role": "user", "content": f"q {number}"}]}
            file.write(json.dumps(row | {"request": asked}) + "\n")


def test_an_import_that_is_killed_is_finished_by_repeating_it(folder: Path) -> None:
    flywheel(folder / "rows.jsonl", 8_000)
    command = [RATCHET, "log", "import", "nvidia", str(folder / "rows.jsonl")]
    environment = os.environ | {"RATCHET_CONFIG": str(folder / "ratchet.yaml")}
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            if any(file.stat().st_size for file in (folder / "data" / "spool").glob("import-*")):
                process.kill()
            time.sleep(0.001)

    again = ratchet(folder, *command[2:])
    counted = ratchet(
        folder, "sql", "SELECT count(*) n, count(DISTINCT id) d FROM invocations", "--json"
    )

    assert process.returncode == -signal.SIGKILL
    assert again.returncode == 0, again.stderr
    assert json.loads(counted.stdout) == [{"n": 8_000, "d": 8_000}]


def test_with_a_learner_the_rows_are_in_the_log_when_the_import_returns(
    folder: Path, learner: LearnerClient
) -> None:
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "a"}]}
        for n in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("import", "openai", str(folder / "rows.jsonl"), "--alias", "helpdesk")

    first = ratchet(folder, *command)
    seen = learner.select("SELECT count(*) AS n FROM invocations").to_pylist()
    again = ratchet(folder, *command)
    out = ratchet(folder, "export", "sft", "-o", str(folder / "out.jsonl"))
    frozen = ratchet(folder, "export", "parquet", "-o", str(folder / "frozen"))

    done = (first, again, out, frozen)
    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    assert seen == [{"n": ROWS}]
    assert learner.select("SELECT count(*) AS n FROM feedback").to_pylist() == [{"n": ROWS}]
    written = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert sorted(map(str, written)) == sorted(map(str, rows))
    assert f"{ROWS:,} invocations, {ROWS:,} feedback" in frozen.stderr
