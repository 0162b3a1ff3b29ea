"""``/v1/erasures`` on the learner's socket; ``ratchet log forget`` with a learner and without."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.errors import BadQuery
from gateway.log.spool import SpoolWriter
from gateway.log.subject import SubjectKey
from learner.api.client import LearnerClient, LearnerDown
from learner.cli.main import main
from tests.factories import body, invocation

CONFIG = """
models: [{alias: helpdesk, base: Qwen/Qwen3-4B}]
"""
USER = "alice@example.com"
MARKER = "pomegranate-4711"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    subject = SubjectKey.open(tmp_path / "data" / "subject.key").of("default", USER)
    writer = SpoolWriter(tmp_path / "data" / "spool", "w0", reserve=0)
    for _ in range(2):
        writer.append(invocation(subject_id=subject, request=body(MARKER), conversation_id=MARKER))
    writer.append(invocation())
    writer.close()
    return tmp_path


@pytest.fixture
def learner(folder: Path) -> Iterator[LearnerClient]:
    command = [sys.executable, "-m", "learner", "--config", str(folder / "ratchet.yaml")]
    client = LearnerClient(folder / "data" / "run" / "learner.sock")
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                client.turns()
                break
            except LearnerDown:
                time.sleep(0.05)
        yield client
        process.terminate()


def ratchet(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"RATCHET_CONFIG": str(folder / "ratchet.yaml")})


def holders(folder: Path) -> list[Path]:
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    return [path for path in files if MARKER.encode() in path.read_bytes()]


def asked(client: LearnerClient, path: str, tenant: str = "default") -> tuple[int, Any]:
    status, answer = client._call("GET", path, None, {"x-ratchet-tenant": tenant})
    return status, json.loads(answer)


def test_a_tenant_erases_a_user_and_reads_its_receipts(
    folder: Path, learner: LearnerClient
) -> None:
    receipt = learner.erase({"user": USER, "remove_now": True}, tenant="default")
    foreign = learner.erase({"user": USER}, tenant="other")

    assert (receipt["status"], receipt["invocations"], foreign["invocations"]) == ("removed", 2, 0)
    assert receipt["subject_id"] != foreign["subject_id"]
    assert asked(learner, f"/v1/erasures/{receipt['id']}") == (200, receipt)
    assert asked(learner, f"/v1/erasures/{receipt['id']}", "other")[0] == 404
    assert asked(learner, "/v1/erasures")[1] == {
        "object": "list",
        "data": [receipt],
        "first_id": receipt["id"],
        "last_id": receipt["id"],
        "has_more": False,
    }
    assert holders(folder) == []
    for order in ({}, {"user": USER, "subject_id": "ab" * 16}, {"subject_id": "alice"}):
        with pytest.raises(BadQuery):
            learner.erase(order, tenant="default")
    with pytest.raises(BadQuery, match="no id of an answer"):
        learner.erase({"invocation_id": "alice"}, tenant="default")


def test_forgetting_goes_through_the_learner_and_without_it(folder: Path) -> None:
    without = ratchet(folder, "log", "forget", "--user", USER, "--json")
    told = ratchet(folder, "log", "forget", "--subject", "ab" * 16)
    compacted = ratchet(folder, "log", "compact")

    receipt = json.loads(without.stdout)
    assert (receipt["status"], receipt["invocations"]) == ("deleted", 2)
    assert "0 invocations and 0 pieces of feedback of tenant default are deleted" in told.stdout
    assert "within a day" in told.stdout
    assert (compacted.exit_code, compacted.stdout) == (0, "the log is compacted\n")
    assert holders(folder) == []


def test_the_command_forgets_at_once_while_the_learner_runs(
    folder: Path, learner: LearnerClient
) -> None:
    done = ratchet(folder, "log", "forget", "--user", USER, "--now", "--reason", "by mail")

    assert "2 invocations and 0 pieces of feedback" in done.stdout
    assert "removed from every file" in done.stdout
    assert holders(folder) == []
    assert learner.select("SELECT reason FROM erasures").to_pylist() == [{"reason": "by mail"}]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "give one of user, subject_id and invocation_id"),
        (("--user", "a", "--invocation", "b"), "give one of"),
        (("--invocation", "alice"), "no id of an answer"),
    ],
)
def test_what_cannot_be_forgotten_is_said(folder: Path, options: tuple[str, ...], why: str) -> None:
    refused = ratchet(folder, "log", "forget", *options)

    assert refused.exit_code == 2
    assert why in refused.stderr
