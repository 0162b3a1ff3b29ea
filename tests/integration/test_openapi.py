"""schemathesis finds no server error and nothing undocumented, whoever asks."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Unpack

import pytest

from gateway.keys import EVERYTHING, Rights, Scope
from tests.integration.conftest import Gateway

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
CONFIG = """
[phases.coverage]
unexpected-methods = ["PATCH"]
extra-data-sources.responses = false
[phases.fuzzing]
extra-data-sources.responses = false
"""
"""Out of what it was told of keys it would learn its own id, and revoke itself."""
MOST = "examples,coverage,fuzzing"
SOME = "examples,fuzzing"


def callers(gateway: Gateway) -> dict[str, tuple[str | None, str]]:
    """The secrets they send, and how much they ask: most who most is open to."""
    now = datetime.now(UTC)

    def made(**rights: Unpack[Rights]) -> str:
        return gateway.keys.create("fuzz", tenant="fuzz", at=now, **rights)[1]

    return {
        "no key": (None, SOME),
        "wrong key": ("sk-ratchet-wrong", SOME),
        "inference key": (made(scopes=frozenset({Scope.INFERENCE})), SOME),
        "full key": (made(scopes=EVERYTHING), MOST),
        "expired key": (made(scopes=EVERYTHING, expires_at=now - timedelta(seconds=1)), SOME),
    }


@pytest.mark.usefixtures("learner")
async def test_nothing_that_a_fuzzer_sends_breaks_it_or_its_word(
    gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    beating = asyncio.create_task(beat(gateway))

    asking = callers(gateway)
    found = await asyncio.gather(
        *(fuzzed(gateway, secret, phases, tmp_path) for secret, phases in asking.values())
    )
    beating.cancel()

    said = {who: report for who, (status, report) in zip(asking, found, strict=True) if status}
    assert not said, "\n".join(f"AS {who}:\n{report}" for who, report in said.items())
    reports = dict(zip(asking, found, strict=True))
    assert "Authentication failed" not in reports["full key"][1]
    assert "Authentication failed" in reports["expired key"][1]


async def fuzzed(
    gateway: Gateway, secret: str | None, phases: str, folder: Path
) -> tuple[int | None, str]:
    """What schemathesis says: its exit status and its report."""
    command = ["-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--phases", phases, "--max-examples", "4"]
    command += ["--generation-deterministic", "--generation-with-security-parameters", "false"]
    command += ["--suppress-health-check", "all", "--continue-on-failure", "--no-color"]
    if secret is not None:
        command += ["--header", f"Authorization: Bearer {secret}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def beat(gateway: Gateway) -> None:
    """The engine's agent goes on saying that it is there."""
    while True:
        gateway.report()
        await asyncio.sleep(1)
