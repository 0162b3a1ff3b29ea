import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.log.cipher import KEY, Keyring
from gateway.log.record import Invocation
from gateway.log.subject import SubjectKey, episode_of
from tests.fakes.vllm import PROMPT_IDS
from tests.integration.conftest import ALIAS, Gateway

PATH = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "0f" * 32
ENCRYPTED = {KEY: SECRET}
FULL = {"GATEWAY_SPOOL_QUOTA": 0}
BEST_EFFORT = FULL | {"GATEWAY_BEST_EFFORT": ["chat", "other"]}
GROUP = {"GATEWAY_DURABILITY": "group"}
CAPTURE = {"GATEWAY_CAPTURE": {ALIAS: {"token_ids": True, "logprobs": True}}}


async def test_the_record_says_all_there_is_to_say(gateway: Gateway) -> None:
    adapter = gateway.promote("a" * 4)
    metadata = {"task": "greeting", "color": "red", "conversation_id": "c1"}
    body = gateway.body("hi", metadata=metadata, user="ann", store=True)
    headers = {
        "x-ratchet-episode-id": "booking 7",
        "x-ratchet-parent-id": f"chatcmpl-{TRACE}",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    }

    while (answer := await gateway.post(PATH, body, **headers)).json()["model"] != adapter:
        pass

    record = gateway.spooled()[-1]
    assert isinstance(record, Invocation)
    assert answer.json()["id"] == f"chatcmpl-{record.id.hex}"
    assert (record.tenant, record.task, record.tags) == ("acme", "greeting", metadata)
    assert record.episode_id == episode_of("acme", "booking 7")
    assert (record.parent_id, record.conversation_id) == (UUID(TRACE), "c1")
    assert (record.trace_id, record.span_id) == (TRACE, "00f067aa0ba902b7")
    assert (record.request_model, record.adapter, record.engine) == (ALIAS, adapter, "e0")
    assert (record.arm, record.propensity, record.status) == ("incumbent", 1.0, 200)
    assert record.subject_id == SubjectKey.open(gateway.data / "subject.key", {}).of("acme", "ann")
    assert (record.train_ok, record.stored) == (True, True)
    assert json.loads(bytes(record.request)) == body
    assert "user" not in gateway.vllm.asked[-1]


async def test_metadata_beyond_openais_limits_is_400(gateway: Gateway) -> None:
    answer = await gateway.post(PATH, gateway.body(metadata={"k": "v" * 513}))

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata.k"


async def test_a_malformed_header_of_ours_is_400(gateway: Gateway) -> None:
    answer = await gateway.post(PATH, gateway.body(), **{"x-ratchet-parent-id": "row 7"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-ratchet-parent-id"


@pytest.mark.parametrize("stream", [False, True])
async def test_without_store_the_record_keeps_the_bill_and_no_bodies(
    gateway: Gateway, stream: bool
) -> None:
    marker = "my secret"
    same = gateway.body(marker, stream=stream)

    await gateway.post(PATH, same | {"store": False})
    await gateway.post(PATH, same)

    bare = gateway.spooled()[0]
    assert (bytes(bare.request), bytes(bare.response), bare.sse) == (b"null", b"null", None)
    assert (bare.train_ok, bare.stored) == (False, False)
    assert (bare.input_tokens, bare.output_tokens) == (5, 3)
    assert (bare.finish_reasons, bare.response_model) == (["stop"], "base")
    assert bare.response_id == f"chatcmpl-{bare.id.hex}"
    assert bare.error_type is None
    lines = next((gateway.data / "spool").glob("*.jsonl")).read_text().splitlines()
    assert [marker in line for line in lines] == [False, True]
    logged = gateway.logged()
    assert logged[0]["prompt_hash"] == logged[1]["prompt_hash"] is not None
    assert (logged[0]["output_tokens"], logged[0]["request"]) == (3, None)


@pytest.mark.parametrize("settings", [CAPTURE])
async def test_what_is_captured_is_recorded_and_not_seen(gateway: Gateway) -> None:
    answer = await gateway.post(PATH, gateway.body("one"))
    chunks = await _stream(gateway, gateway.body("one", stream=True))
    asked = await gateway.post(PATH, gateway.body("one", logprobs=True))

    seen = answer.json()
    assert seen["choices"][0]["message"]["content"] == "base: one"
    assert (seen["prompt_token_ids"], seen["choices"][0]["token_ids"]) == (None, None)
    assert seen["choices"][0]["logprobs"] is None
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "base: "},
        {"content": "one "},
        {},
    ]
    shown = [(one["choices"][0].get("token_ids"), one["choices"][0]["logprobs"]) for one in chunks]
    assert shown == [(None, None)] * 4
    assert asked.json()["choices"][0]["logprobs"] is not None
    whole, streamed, _ = gateway.logged()
    for row in (whole, streamed):
        kept = json.loads(str(row["response"]))
        tokens = kept["choices"][0]["token_ids"]
        assert kept["prompt_token_ids"] == PROMPT_IDS
        assert len(kept["choices"][0]["logprobs"]["content"]) == len(tokens) > 1


@pytest.mark.parametrize("settings", [CAPTURE])
async def test_nothing_is_captured_of_what_is_not_stored(gateway: Gateway) -> None:
    await gateway.post(PATH, gateway.body("one", store=False))

    assert "return_token_ids" not in gateway.vllm.asked[0]


@pytest.mark.parametrize("settings", [GROUP])
async def test_with_group_durability_answers_and_streams_come_all_the_same(
    gateway: Gateway,
) -> None:
    answers = await asyncio.gather(
        *(gateway.post(PATH, gateway.body(str(n), stream=bool(n % 2))) for n in range(20))
    )

    assert [answer.status_code for answer in answers] == [200] * 20
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers[1::2])
    assert len(gateway.spooled()) == 20


@pytest.mark.parametrize("settings", [FULL])
async def test_what_cannot_be_recorded_is_not_given(gateway: Gateway) -> None:
    answer = await gateway.post(PATH, gateway.body())
    stream = await _stream(gateway, gateway.body(stream=True))
    bad = await gateway.post("/v1/feedback", {"metric_name": "m", "value": 1, "episode_id": "e"})

    for refused in (answer, bad):
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "log_unavailable"
        assert "/health/ready" in refused.json()["error"]["message"]
    assert stream[-1]["error"]["code"] == "log_unavailable"
    assert gateway.spooled() == []


@pytest.mark.parametrize("settings", [FULL])
async def test_a_refusal_that_cannot_be_recorded_is_a_503_too(gateway: Gateway) -> None:
    gateway.promote("a" * 4)
    gateway.vllm.adapters.clear()

    answer = await gateway.post(PATH, gateway.body())

    assert answer.status_code == 503
    assert gateway.process.poll() is None


@pytest.mark.parametrize("settings", [BEST_EFFORT])
async def test_a_best_effort_task_is_answered_without_a_record_and_counted(
    gateway: Gateway,
) -> None:
    chat = gateway.body("hi", metadata={"task": "chat"})

    answer = await gateway.post(PATH, chat)
    stream = await _stream(gateway, chat | {"stream": True})
    required = await gateway.post(PATH, gateway.body())

    assert answer.status_code == 200
    assert stream[-1]["choices"][0]["finish_reason"] == "stop"
    assert required.status_code == 503
    spool = (await _get(gateway, "/health/ready")).json()["spool"]
    assert (spool["dropped"], spool["waiting_bytes"]) == (2, 0)
    assert "quota" in spool["error"]


@pytest.mark.parametrize("settings", [FULL])
async def test_a_cut_stream_that_cannot_be_recorded_is_counted(gateway: Gateway) -> None:
    gateway.vllm.chunk_delay_s = 0.05
    body = gateway.body("many words " * 20, stream=True)
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client,
        client.stream("POST", PATH, json=body) as response,
    ):
        await anext(response.aiter_lines())

    async with asyncio.timeout(5):
        while (await _get(gateway, "/health/ready")).json()["spool"]["dropped"] != 1:
            pass


async def test_the_health_of_the_spool_is_told(gateway: Gateway) -> None:
    await gateway.post(PATH, gateway.body())

    answer = await _get(gateway, "/health/ready")

    spool = answer.json()["spool"]
    assert (answer.status_code, spool["dropped"], spool["error"]) == (200, 0, None)
    assert spool["waiting_bytes"] > 0


@pytest.mark.parametrize("settings", [ENCRYPTED])
async def test_with_a_key_the_spool_is_sealed(gateway: Gateway) -> None:
    await gateway.post(PATH, gateway.body("my secret"))

    (segment,) = (gateway.data / "spool").glob("*.jsonl")
    (record,) = gateway.spooled(Keyring.of(bytes.fromhex(SECRET)).spool)
    assert b"secret" not in segment.read_bytes()
    assert b"my secret" in bytes(record.request)


def test_a_key_that_is_none_ends_the_worker_with_one_line(tmp_path: Path) -> None:
    environment = os.environ | {KEY: "short", "GATEWAY_SUBJECT_KEY": str(tmp_path / "subject.key")}

    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("the gateway cannot start: the encryption key must be 32 bytes")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DURABILITY", "fast", "GATEWAY_DURABILITY: Input should be 'none', 'interval' or 'group'"),
        ("METRICS", '{"good": {"type": "bool"}}', "GATEWAY_METRICS.good.type: Input should be"),
        ("METRICS", "good", 'error parsing value for field "metrics"'),
        ("PORT", "80000", "GATEWAY_PORT: Input should be less than or equal to 65535"),
    ],
)
def test_a_setting_that_is_none_ends_the_worker_with_one_line(
    name: str, value: str, told: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=os.environ | {f"GATEWAY_{name}": value},
        capture_output=True,
        text=True,
        check=False,
    )

    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"the gateway cannot start: {told}")


async def _get(gateway: Gateway, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return await client.get(path)


async def _stream(gateway: Gateway, body: Any) -> list[dict[str, Any]]:
    """The events of a stream, but for its end."""
    answer = await gateway.post(PATH, body)
    payloads = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(payload) for payload in payloads if payload != "[DONE]"]
