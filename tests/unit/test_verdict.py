import json

import pytest

from gateway.guards.verdict import MAX_REASON, Malformed, Stage, read
from gateway.log.record import Verdict


def heard(said: object, stage: Stage = "before") -> tuple[Verdict, bytes | None]:
    return read(json.dumps(said).encode(), guard="g", stage=stage)


@pytest.mark.parametrize("action", ["allow", "block", "flag"])
def test_a_verdict_is_an_action_a_reason_and_a_score(action: str) -> None:
    verdict, replacement = heard({"action": action, "reason": "so", "score": 1, "more": []})

    assert verdict == Verdict(guard="g", stage="before", action=action, reason="so", score=1.0)
    assert replacement is None


@pytest.mark.parametrize(("stage", "name"), [("before", "request"), ("after", "response")])
def test_a_redaction_brings_what_it_leaves(stage: Stage, name: str) -> None:
    bodies = {"request": {"is": "request"}, "response": {"is": "response"}}

    verdict, replacement = heard({"action": "redact"} | bodies, stage)

    assert (verdict.action, verdict.stage) == ("redact", stage)
    assert json.loads(replacement or b"") == {"is": name}


def test_a_long_reason_is_cut() -> None:
    verdict, _ = heard({"action": "flag", "reason": "x" * 5000})

    assert verdict.reason == "x" * MAX_REASON


@pytest.mark.parametrize(
    "said",
    [
        None,
        "allow",
        {},
        {"action": "ALLOW"},
        {"action": "error"},
        {"action": "flag", "score": 1.01},
        {"action": "flag", "score": -0.01},
        {"action": "flag", "score": True},
        {"action": "flag", "score": "0.5"},
        {"action": "flag", "reason": 5},
        {"action": "redact"},
        {"action": "redact", "request": None},
        {"action": "redact", "request": "text"},
        {"action": "redact", "response": {}},
    ],
)
def test_anything_else_is_malformed(said: object) -> None:
    with pytest.raises(Malformed):
        heard(said)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"<html>",
        b'{"action":"flag","score":NaN}',
        b'{"action":"redact","request":{"a":"\xff"}}',
    ],
)
def test_what_is_no_json_is_malformed(said: bytes) -> None:
    with pytest.raises(Malformed):
        read(said, guard="g", stage="before")
