"""The learner's socket and the command line, against a real learner process."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.errors import BadQuery, StoreError
from gateway.log.spool import SpoolWriter
from learner.api.client import LearnerClient, LearnerDown
from tests.factories import demonstration, invocation
from tests.integration.conftest import free_port

CONFIG = """
models: [{alias: helpdesk, base: Qwen/Qwen3-4B}]
"""
RATCHET = Path(sys.executable).with_name("ratchet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def process(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "learner", "--config", str(folder / "ratchet.yaml")]
    with subprocess.Popen(command) as process:
        yield process
        process.terminate()


@pytest.fixture
def learner(folder: Path, process: "subprocess.Popen[bytes]") -> LearnerClient:
    client = LearnerClient(folder / "data" / "run" / "learner.sock")

    def answers() -> bool:
        try:
            client.turns()
        except LearnerDown:
            return False
        return True

    until(answers)
    return client


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ratchet(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"RATCHET_CONFIG": str(folder / "ratchet.yaml")}
    return subprocess.run(
        [RATCHET, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_the_log_is_read_through_the_learner_and_without_it(
    folder: Path, learner: LearnerClient
) -> None:
    spool = SpoolWriter(folder / "data" / "spool", "w0")
    call = invocation()
    spool.append(call)
    spool.append(demonstration(call.id, order="7"))
    until(lambda: learner.select("select * from feedback").num_rows == 1)

    tail = ratchet(folder, "log", "tail")
    shown = ratchet(folder, "log", "show", f"chatcmpl-{call.id.hex}")
    csv = ratchet(
        folder,
        "log",
        "sql",
        "select status, count(*) n from invocations group by 1",
        "--format",
        "csv",
    )

    assert str(call.id) in tail.stdout
    found = json.loads(shown.stdout)
    assert found["request"]["messages"][0]["role"] == "user"
    assert found["feedback"][0]["value"]["tool_calls"][0]["function"]["name"] == "refund"
    assert csv.stdout == '"status","n"\n200,1\n'
    spool.close()


def test_nobody_else_reaches_the_socket(folder: Path, learner: LearnerClient) -> None:
    run = folder / "data" / "run"

    assert learner.health()["trouble"] is None
    assert run.stat().st_mode & 0o077 == 0


def test_big_answers_come_batch_by_batch_and_an_end_too_early_is_noticed(
    learner: LearnerClient, process: "subprocess.Popen[bytes]"
) -> None:
    whole = sum(batch.num_rows for batch in learner.batches("select * from range(300000)"))
    endless = learner.batches("select repeat('x', 100) from range(100000000)")
    first = next(endless)

    process.kill()

    assert whole == 300_000
    assert 0 < first.num_rows < 100_000
    with pytest.raises(StoreError, match="broke off"):
        for _ in endless:
            pass
    with pytest.raises(LearnerDown):
        learner.select("select 1")


def test_named_queries_are_asked_by_the_client_and_the_command_line(
    folder: Path, learner: LearnerClient
) -> None:
    spool = SpoolWriter(folder / "data" / "spool", "w0", reserve=0)
    for task in ("refund", "refund", "returns"):
        spool.append(invocation(task=task, tags={"task": task}))
    spool.close()
    until(lambda: learner.select("select * from invocations").num_rows == 3)

    since = {"since": "2026-01-01", "by": "task"}
    usage = pa.Table.from_batches(learner.query("usage", since)).to_pylist()
    told = ratchet(folder, "log", "query", "usage", "--param", "by=task", "--json")
    names = ratchet(folder, "log", "query")
    tail = ratchet(folder, "log", "tail", "--json", "--where", '{"metadata": {"task": "returns"}}')
    file = folder / "out.parquet"
    select = ("log", "sql", "select task from invocations", "--format", "parquet", "-o", str(file))
    stored = ratchet(folder, *select)
    wrong = ratchet(folder, "log", "query", "usage", "--param", "by=moon")

    assert {one["task"]: one["calls"] for one in usage} == {"refund": 2, "returns": 1}
    assert told.returncode == 0, told.stderr
    assert "usage: calls, errors" in names.stdout
    assert len(json.loads(tail.stdout)) == 1
    assert stored.returncode == 0, stored.stderr
    assert parquet.read_table(file).num_rows == 3
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("ratchet: by must be among day, hour")
    assert learner.health() == {"invocations": 3, "trouble": None}


def test_a_bad_query_is_one_line_and_a_non_zero_exit(folder: Path, learner: LearnerClient) -> None:
    with pytest.raises(BadQuery):
        learner.select("select nope from invocations")

    refused = ratchet(folder, "log", "sql", "delete from invocations")

    assert refused.returncode == 1
    assert refused.stderr == "ratchet: only a single SELECT is answered\n"


def test_the_log_is_read_from_its_file_when_no_learner_runs(folder: Path) -> None:
    answer = ratchet(folder, "log", "sql", "select count(*) as n from invocations", "--json")

    assert json.loads(answer.stdout) == [{"n": 0}]


def test_keys_are_shown_once_and_revoked(folder: Path) -> None:
    made = json.loads(ratchet(folder, "keys", "create", "ci", "--json").stdout)
    listed = ratchet(folder, "keys", "list").stdout
    revoked = ratchet(folder, "keys", "revoke", made["id"])
    again = ratchet(folder, "keys", "revoke", made["id"])

    assert made["key"].startswith("sk-ratchet-")
    assert made["id"] in listed
    assert made["key"] not in listed
    assert revoked.returncode == 0
    assert again.returncode == 1
    assert made["key"] not in (folder / "data" / "state.db").read_bytes().decode("latin-1")


def test_a_bad_configuration_is_one_line(folder: Path) -> None:
    (folder / "ratchet.yaml").write_text("modles: []\n")

    checked = ratchet(folder, "config", "check")

    assert checked.returncode == 1
    assert "modles: no such setting; allowed are data, gateway" in checked.stderr
    assert checked.stderr.count("\n") == 1


def test_up_refuses_what_cannot_work_before_anything_starts(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (folder / "ratchet.yaml").write_text(CONFIG + f"gateway: {{port: {port}}}\n")
        busy = ratchet(folder, "up")
    (folder / "ratchet.yaml").write_text(
        f"models: [{{alias: a, base: ./nowhere}}]\ngateway: {{port: {free_port()}}}\n"
    )
    missing = ratchet(folder, "up")

    assert busy.returncode == missing.returncode == 1
    assert f"port {port}" in busy.stderr
    assert "gateway.port" in busy.stderr
    assert "there is no model at ./nowhere" in missing.stderr
    assert not (folder / "data" / "logs").exists(), "a role was started"
