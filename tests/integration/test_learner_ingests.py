"""The learner takes the spool in as its configuration and its environment say."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.errors import StoreLocked
from gateway.log.cipher import KEY, Keyring
from gateway.log.ingest import Ingester
from gateway.log.spool import SpoolWriter
from learner.__main__ import serve
from learner.api.client import LearnerClient, LearnerDown
from learner.log import sole_owner
from learner.settings import load
from tests.factories import invocation

CONFIG = """
models: [{alias: helpdesk, base: Qwen/Qwen3-4B, price: {input: 1, output: 10}}]
"""
SECRET = "ab" * 32


def test_an_encrypted_spool_is_taken_in_and_its_calls_have_their_price(tmp_path: Path) -> None:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)
    keys = Keyring.from_environment({KEY: SECRET})
    assert keys is not None
    writer = SpoolWriter(tmp_path / "data" / "spool", "w0", cipher=keys.spool)
    writer.append(invocation())
    writer.close()
    command = [sys.executable, "-m", "learner", "--config", str(tmp_path / "ratchet.yaml")]
    client = LearnerClient(tmp_path / "data" / "run" / "learner.sock")

    with subprocess.Popen(command, env=os.environ | {KEY: SECRET}) as process:
        deadline = time.monotonic() + 30
        costs: list[object] = []
        while not costs and time.monotonic() < deadline:
            try:
                costs = client.select("SELECT cost FROM invocations").to_pylist()
            except LearnerDown:
                time.sleep(0.05)
        process.terminate()

    assert costs == [{"cost": pytest.approx((3 * 1 + 2 * 10) / 1e6)}]
    assert process.returncode == 0


def test_a_learner_whose_ingest_ended_ends_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ratchet.yaml").write_text(CONFIG)

    def end(self: Ingester, stop: threading.Event) -> NoReturn:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(Ingester, "run", end)

    with pytest.raises(RuntimeError, match="nobody thought of this"):
        asyncio.run(serve(load(tmp_path / "ratchet.yaml")))


def test_a_second_learner_does_not_take_in_the_same_spool_into_a_lake(tmp_path: Path) -> None:
    (tmp_path / "ratchet.yaml").write_text(f"{CONFIG}log: {{url: 'ducklake:sqlite:log.db'}}\n")
    config = load(tmp_path / "ratchet.yaml")

    with sole_owner(config.spool), pytest.raises(StoreLocked, match="another process"):
        asyncio.run(serve(config))

    with sole_owner(config.spool):
        pass  # the one that was refused did not keep it
