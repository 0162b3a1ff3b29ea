import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sandbox import lacking
from tests.fakes.guard import FakeGuard
from tests.integration.conftest import ALIAS, Gateway, free_port

PATH = "/v1/chat/completions"
SECRET = "4111-1111"
MASKED = "[card]"
STREAMS = [False, True]


@pytest.fixture
async def guard() -> AsyncIterator[FakeGuard]:
    async with FakeGuard() as fake:
        yield fake


@pytest.fixture
def python() -> str | None:
    """The file of the only guard, if it is none at an endpoint: parametrize it."""
    return None


@pytest.fixture
def settings(guard: FakeGuard, python: str | None, tmp_path: Path) -> dict[str, object]:
    """Two guards before, two after: of each the second lets calls through when it fails."""
    if python is not None:
        file = tmp_path / "guard.py"
        file.write_text(python)
        mine = {"type": "python", "name": "mine", "file": str(file), "timeout_s": 1}
        return {"GATEWAY_MODELS": {ALIAS: {"guards": {"before": [mine], "after": [mine]}}}}

    def asked(name: str, on_error: str) -> dict[str, object]:
        told = {"name": name, "url": f"{guard.url}/{name}", "on_error": on_error, "timeout_s": 1}
        return told | {"type": "http", "headers": {"X-Token": "Bearer $GUARD_TOKEN"}}

    before = [asked("words", "block"), asked("hints", "allow")]
    after = [asked("cards", "block"), asked("tone", "allow")]
    guards = {"before": before, "after": after}
    return {"GATEWAY_MODELS": {ALIAS: {"guards": guards}}, "GUARD_TOKEN": "t0k"}


def masked(name: str) -> Any:
    """A guard that takes the secret out of the request or the response."""

    def redact(question: dict[str, Any]) -> object:
        whole = json.dumps(question[name]).replace(SECRET, MASKED)
        return {"action": "redact", "reason": "a card", name: json.loads(whole)}

    return redact


def said(verdicts: Any) -> list[tuple[str, str, str]]:
    return [(one["guard"], one["stage"], one["action"]) for one in json.loads(verdicts)]


def text(answer: httpx.Response, *, stream: bool) -> str:
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"])
    assert answer.text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if "{" in line]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("stream", STREAMS)
async def test_guards_are_asked_before_and_after_and_their_scores_are_feedback(
    gateway: Gateway, guard: FakeGuard, stream: bool
) -> None:
    guard.says["tone"] = lambda _: {"action": "flag", "score": 0.25, "reason": "curt"}
    body = gateway.body("hi there", stream=stream)

    answer = await gateway.post(PATH, body)

    assert (answer.status_code, text(answer, stream=stream).strip()) == (200, "base: hi there")
    assert [name for name, _ in guard.asked] == ["words", "hints", "cards", "tone"]
    before, after = guard.asked[0][1], guard.asked[2][1]
    assert before == {"stage": "before", "alias": ALIAS, "tenant": "acme", "request": body}
    assert (after["stage"], after["request"]) == ("after", body)
    content = after["response"]["choices"][0]["message"]["content"]
    assert content.strip() == "base: hi there"
    assert {headers["x-token"] for headers in guard.headers} == {"Bearer t0k"}
    [row] = gateway.logged()
    assert said(row["verdicts"]) == [
        ("words", "before", "allow"),
        ("hints", "before", "allow"),
        ("cards", "after", "allow"),
        ("tone", "after", "flag"),
    ]
    [opinion] = gateway.logged("SELECT name, score_value, explanation FROM feedback")
    assert opinion == {"name": "tone", "score_value": 0.25, "explanation": "curt"}


async def test_a_stream_that_guards_let_through_is_the_engines_byte_for_byte(
    gateway: Gateway, guard: FakeGuard
) -> None:
    body = gateway.body("one two", stream=True, stream_options={"include_usage": True})
    guard.says["cards"] = lambda _: {"action": "flag"}

    guarded = await gateway.post(PATH, body)
    plain = await gateway.post(PATH, body | {"model": "base"})

    def same(answer: httpx.Response) -> list[str]:
        return [line.partition('"created"')[2] for line in answer.text.splitlines()]

    assert guarded.headers["content-type"] == plain.headers["content-type"]
    assert same(guarded) == same(plain)
    assert len(same(guarded)) > 4


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_request_that_is_blocked_never_reaches_the_engine(
    gateway: Gateway, guard: FakeGuard, stream: bool
) -> None:
    guard.says["words"] = lambda _: {"action": "block", "reason": "not that word"}

    answer = await gateway.post(PATH, gateway.body("damn", stream=stream))

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    message = answer.json()["error"]["message"]
    assert message == "The request was blocked by the guard `words`: not that word"
    assert gateway.vllm.asked == []
    assert [name for name, _ in guard.asked] == ["words"]
    [row] = gateway.logged()
    assert (row["status"], row["error_type"]) == (400, "content_filter")
    assert said(row["verdicts"]) == [("words", "before", "block")]


@pytest.mark.parametrize("stream", STREAMS)
async def test_an_answer_that_is_blocked_is_not_given_and_was_paid_for(
    gateway: Gateway, guard: FakeGuard, stream: bool
) -> None:
    guard.says["tone"] = lambda _: {"action": "block"}

    answer = await gateway.post(PATH, gateway.body("damn", stream=stream))

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")
    message = answer.json()["error"]["message"]
    assert message == "The answer was blocked by the guard `tone`."
    [row] = gateway.logged()
    assert (row["status"], row["input_tokens"], row["output_tokens"]) == (400, 5, 2)
    assert "base: damn" in str(row["response"])
    assert said(row["verdicts"])[-1] == ("tone", "after", "block")


@pytest.mark.parametrize("stream", STREAMS)
async def test_what_is_redacted_reaches_neither_engine_nor_client_nor_log(
    gateway: Gateway, guard: FakeGuard, stream: bool
) -> None:
    body = gateway.body(f"my card {SECRET}", stream=stream)
    guard.says["words"] = masked("request")

    answer = await gateway.post(PATH, body)
    guard.says["words"] = lambda _: {"action": "allow"}
    guard.says["cards"] = masked("response")
    after = await gateway.post(PATH, body)

    for one in (answer, after):
        assert text(one, stream=stream).strip() == f"base: my card {MASKED}"
        assert "usage" not in one.text or not stream
    assert gateway.vllm.asked[0]["messages"][0]["content"] == f"my card {MASKED}"
    questions = dict(guard.asked[:4])
    assert SECRET not in json.dumps(questions["hints"])
    assert SECRET not in json.dumps(guard.asked[-1][1]["response"])
    first, second = gateway.logged()
    assert SECRET not in str(first)
    assert SECRET not in str(second["response"])
    assert MASKED in str(second["response"])
    assert second["output_tokens"] == 4
    assert said(first["verdicts"])[0] == ("words", "before", "redact")


@pytest.mark.parametrize("stream", STREAMS)
async def test_what_a_guard_took_out_of_what_the_next_one_blocks_is_not_in_the_log(
    gateway: Gateway, guard: FakeGuard, stream: bool
) -> None:
    body = gateway.body(f"my card {SECRET}", stream=stream)
    guard.says |= {"words": masked("request"), "hints": lambda _: {"action": "block"}}
    await gateway.post(PATH, body)
    guard.says |= {"hints": lambda _: {"action": "allow"}, "words": lambda _: {"action": "allow"}}
    guard.says |= {"cards": masked("response"), "tone": lambda _: {"action": "block"}}
    await gateway.post(PATH, body)

    first, second = gateway.logged()

    assert SECRET not in str(first)
    assert MASKED in str(first["request"])
    assert SECRET not in str(second["response"])
    assert MASKED in str(second["response"])


@pytest.mark.parametrize(
    "verdict",
    [
        {"action": "shrug"},
        {"action": "flag", "score": 1.5},
        {"action": "redact"},
        {"action": "redact", "request": "words"},
        {"action": "redact", "request": {"model": ALIAS}},
        {"action": "redact", "request": {"model": "base", "messages": []}},
        ["allow"],
    ],
)
async def test_what_is_no_verdict_is_the_guards_error(
    gateway: Gateway, guard: FakeGuard, verdict: object
) -> None:
    guard.says["words"] = lambda _: verdict
    refused = await gateway.post(PATH, gateway.body())
    guard.says = {"hints": lambda _: verdict}
    passed = await gateway.post(PATH, gateway.body())

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert "words" in refused.json()["error"]["message"]
    assert passed.status_code == 200
    first, second = gateway.logged()
    assert said(first["verdicts"]) == [("words", "before", "error")]
    assert ("hints", "before", "error") in said(second["verdicts"])


async def test_a_guard_that_fails_or_is_silent_blocks_or_not_as_configured(
    gateway: Gateway, guard: FakeGuard
) -> None:
    guard.status = 500
    failed = await gateway.post(PATH, gateway.body())
    guard.status, guard.silent = 200, True
    silent = await gateway.post(PATH, gateway.body())

    assert (failed.status_code, silent.status_code) == (400, 400)
    assert gateway.vllm.asked == []
    reasons = [json.loads(str(row["verdicts"]))[0]["reason"] for row in gateway.logged()]
    assert reasons == ["it answered with status 500", "no verdict within 1 s"]


async def test_without_store_no_reason_is_kept(gateway: Gateway, guard: FakeGuard) -> None:
    guard.says["words"] = lambda _: {"action": "flag", "reason": "said damn", "score": 1}

    await gateway.post(PATH, gateway.body("damn", store=False))

    assert "damn" not in next((gateway.data / "spool").glob("*.jsonl")).read_text()
    [record] = gateway.spooled()
    assert (record.verdicts[0].action, record.verdicts[0].score) == ("flag", 1.0)


PYTHON = """
import re
SEEN = []
def guard(call):
    said = call["request"]["messages"][-1]["content"]
    if said == "loop":
        while True:
            pass
    if said == "die":
        import os
        os._exit(1)
    if said == "none":
        return None
    if said == "false":
        return False
    if call["stage"] == "after":
        return {"action": "flag", "score": len(call["response"]["choices"]) / 2}
    if "4111" in said:
        call["request"]["messages"][-1]["content"] = re.sub("[0-9-]{4,}", "[card]", said)
        return {"action": "redact", "request": call["request"], "reason": "a card"}
    return True
"""


@pytest.mark.skipif(bool(lacking()), reason=str(lacking()))
@pytest.mark.parametrize("python", [PYTHON])
async def test_guards_in_python_do_what_endpoints_do(gateway: Gateway) -> None:
    async def status(said: str) -> int:
        return (await gateway.post(PATH, gateway.body(said))).status_code

    assert await status("none") == 200
    assert await status("false") == 400
    assert [await status("loop"), await status("die")] == [400, 400]
    answer = await gateway.post(PATH, gateway.body(f"my card {SECRET}"))

    assert text(answer, stream=False) == f"base: my card {MASKED}"
    rows = gateway.logged()
    assert said(rows[0]["verdicts"]) == [("mine", "before", "allow"), ("mine", "after", "allow")]
    reasons = [json.loads(str(row["verdicts"]))[0].get("reason") for row in rows[1:4]]
    assert reasons == [None, "no answer within 1 s", "its process died: it ended"]
    assert said(rows[4]["verdicts"]) == [("mine", "before", "redact"), ("mine", "after", "flag")]
    assert SECRET not in str(rows[4])
    [opinion] = gateway.logged("SELECT name, score_value FROM feedback")
    assert opinion == {"name": "mine", "score_value": 0.5}


@pytest.mark.parametrize(
    ("said", "env", "why"),
    [
        ({"headers": {"A": "Bearer $NO_SUCH"}}, {}, "sends $NO_SUCH as A, and that variable is"),
        ({"headers": {"A": "5$"}}, {}, "write $$ for the character itself"),
        ({"type": "python"}, {}, "guard.py:2: expected ':'"),
        ({"type": "python"}, {"PATH": "/none"}, "not installed; apt-get install -y bubblewrap"),
    ],
)
def test_a_gateway_whose_guards_cannot_be_asked_does_not_start(
    tmp_path: Path, said: dict[str, object], env: dict[str, str], why: str
) -> None:
    file = tmp_path / "guard.py"
    file.write_text("\ndef guard(call)\n    pass\n")
    where = {"file": str(file)} if said.get("type") else {"type": "http", "url": "http://x/"}
    if "file" in where and not env and lacking():
        pytest.skip(str(lacking()))
    models = {ALIAS: {"guards": {"before": [where | said | {"name": "mine"}]}}}
    places = {
        f"GATEWAY_{name}": str(tmp_path / name.lower())
        for name in ("SPOOL", "LIMITS", "RUN", "SUBJECT_KEY")
    }
    places |= {"GATEWAY_DATABASE": f"sqlite:///{tmp_path / 'state.db'}"}
    places |= {"GATEWAY_PORT": str(free_port()), "GATEWAY_MODELS": json.dumps(models)}

    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=os.environ | places | env,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    [line] = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("the gateway cannot start: ")
    assert why in line
