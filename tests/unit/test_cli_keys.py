import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.keys import Budget, Key, Window
from gateway.limits import SharedLimits
from learner.cli.main import main

CONFIG = """
models: [{alias: helpdesk, base: Qwen/Qwen3-4B}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "ratchet.yaml"
    path.write_text(CONFIG)
    return path


def ratchet(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ("keys", *arguments, "--config", str(config)))


def listed(config: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ratchet(config, "list", "--json").stdout)
    return found


def test_a_key_is_made_as_told_and_shown_once(config: Path) -> None:
    options = (
        "create ci --tenant acme --scope inference --scope admin --model helpdesk --no-train "
        "--rpm 60 --tpm 9000 --concurrency 4 --budget day=5.00 --budget month=50 "
        "--token-budget month=1000000 --expires 30d --json"
    )

    made = json.loads(ratchet(config, *options.split()).stdout)

    secret = made.pop("key")
    assert secret.startswith("sk-ratchet-")
    assert listed(config) == [made]
    assert made["scopes"] == ["admin", "inference"]
    assert (made["tenant"], made["models"], made["train"]) == ("acme", ["helpdesk"], False)
    assert list(made["limits"].values()) == [60, 9000, 4]
    assert made["budgets"] == [
        {"window": "day", "tokens": None, "money": 5.0},
        {"window": "month", "tokens": 1000000, "money": 50.0},
    ]
    assert made["expires_at"] - made["created_at"] == 30 * 86400
    assert made["expires_at"] > time.time()


def test_a_key_is_for_inference_unless_told(config: Path) -> None:
    shown = ratchet(config, "create", "ci")

    assert shown.stdout.startswith("sk-ratchet-")
    assert "inference  any model  created" in shown.stdout
    assert [key["scopes"] for key in listed(config)] == [["inference"]]


def test_a_listing_says_what_each_may(config: Path) -> None:
    ratchet(config, "create", "a", "--model", "helpdesk", "--rpm", "6", "--budget", "day=0.5")
    ratchet(config, "create", "b", "--tenant", "acme", "--no-train")

    line, other = ratchet(config, "list").stdout.splitlines()
    of_one = ratchet(config, "list", "--tenant", "acme").stdout.splitlines()

    assert "a  tenant default  inference  models helpdesk  6 requests/min  0.5 money/day" in line
    assert "not learnt from" in other
    assert of_one == [other]


async def use(limits: Path, key: Key, tokens: int, money: float) -> None:
    """A call of the key's, as a gateway counts it."""
    limiter = SharedLimits(limits)
    limiter.admit(key, tokens=1, cost=0.0).settle(tokens, money)
    await limiter.close()


def test_a_listing_says_what_is_used_of_budgets(config: Path) -> None:
    options = "create ci --budget total=5.00 --token-budget total=100 --token-budget month=900"
    made = json.loads(ratchet(config, *options.split(), "--json").stdout)
    budgets = (Budget(Window.TOTAL, 100, 5.0), Budget(Window.MONTH, 900))
    key = Key(made["id"], "ci", "default", budgets=budgets)
    asyncio.run(use(config.parent / "data" / "run" / "limits", key, 70, 0.25))

    line = ratchet(config, "list").stdout
    shown = json.loads(ratchet(config, "show", made["id"], "--json").stdout)

    assert "900 tokens/month (70 used)" in line
    assert "5 money/total (0.25 used)  100 tokens/total (70 used)" in line
    month, total = shown["used"]
    assert (month["window"], month["tokens"]) == ("month", 70)
    assert month["until"] > time.time()
    assert total == {"window": "total", "tokens": 70, "money": 0.25, "until": None}


def test_what_nobody_can_say_is_a_dash(config: Path) -> None:
    config.write_text(f"{CONFIG}gateway: {{limits: 'redis://127.0.0.1:1'}}\n")
    made = ratchet(config, "create", "ci", "--budget", "day=5.00")
    ratchet(config, "create", "other", "--budget", "day=5.00")

    line, other = ratchet(config, "list").stdout.splitlines()

    assert made.exit_code == 0
    assert "5 money/day (- used)" in line
    assert "5 money/day (- used)" in other
    assert [key["used"] for key in listed(config)] == [None, None]


def test_a_key_is_rotated_and_revoked(config: Path) -> None:
    made = json.loads(ratchet(config, "create", "ci", "--json").stdout)

    rotated = json.loads(ratchet(config, "rotate", made["id"], "--grace", "1h", "--json").stdout)
    revoked = ratchet(config, "revoke", made["id"])
    shown = json.loads(ratchet(config, "show", made["id"], "--json").stdout)

    assert rotated.pop("key") != made.pop("key")
    assert rotated == made
    assert revoked.stdout == f"{made['id']} no longer opens\n"
    assert shown["revoked_at"] is not None
    assert listed(config) == []


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_an_unknown_key_is_one_line(config: Path, command: str) -> None:
    refused = ratchet(config, command, "key_0")

    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        "ratchet: there is no key key_0 that opens; `ratchet keys list` shows them"
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--scope root", "'root' is not one of"),
        ("--rpm 0", "0 is not in the range"),
        ("--budget year=5", "must begin with one of minute, hour, day, month, total"),
        ("--budget day=lots", "'lots' is no number above zero"),
        ("--budget day=nan", "'nan' is no number above zero"),
        ("--token-budget day=1.5", "'1.5' is no whole number above zero"),
        ("--expires tomorrow", "'tomorrow' is no span of time"),
        ("--expires 0d", "'0d' is no span of time"),
        ("--expires 99999999999999d", "is no span of time"),
        ("--expires 9999999d", "cannot expire that late"),
    ],
)
def test_a_bad_value_is_said_in_a_line(config: Path, options: str, why: str) -> None:
    refused = ratchet(config, "create", "ci", *options.split())

    assert refused.exit_code in (1, 2)
    assert why in refused.stderr.splitlines()[-1]
    assert listed(config) == []


@pytest.mark.parametrize("name", ["", "  ", "a\nb"])
def test_a_key_has_a_name_that_can_be_read(config: Path, name: str) -> None:
    refused = ratchet(config, "create", name)

    assert refused.exit_code == 1
    assert refused.stderr.startswith("ratchet: a key's name is for people to read")
    assert listed(config) == []


def test_a_key_that_never_was_cannot_be_shown(config: Path) -> None:
    refused = ratchet(config, "show", "key_0")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("ratchet: there never was a key key_0;")
