import asyncio
import json
import signal
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from openai import APIError, AsyncOpenAI, AuthenticationError, NotFoundError

from serving.registry import EngineState
from tests.integration.conftest import ALIAS, Gateway

PATH = "/v1/chat/completions"


def openai(gateway: Gateway) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)


def messages(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_an_answer_passes_through_and_is_in_the_log(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        answer = await client.chat.completions.create(
            model=ALIAS,
            messages=messages("hello"),
            metadata={"task": "greeting"},
            logprobs=True,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )

    assert answer.choices[0].message.content == "base: hello"
    assert gateway.vllm.asked[0]["logprobs"] is True
    assert gateway.vllm.asked[0]["tools"][0]["function"]["name"] == "f"
    (row,) = gateway.logged()
    assert (row["tenant"], row["task"], row["request_model"]) == ("acme", "greeting", ALIAS)
    assert (row["adapter"], row["engine"], row["status"]) == (None, "e0", 200)
    assert (row["input_tokens"], row["output_tokens"]) == (5, 2)
    assert row["finish_reasons"] == ["stop"]
    assert json.loads(str(row["request"]))["messages"] == messages("hello")
    assert answer.id == f"chatcmpl-{UUID(str(row['id'])).hex}"


async def test_a_stream_passes_through_and_is_assembled_in_the_log(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        stream = await client.chat.completions.create(
            model=ALIAS, messages=messages("one two"), stream=True
        )
        chunks = [chunk async for chunk in stream]

    assert "".join(c.choices[0].delta.content or "" for c in chunks).split() == [
        "base:",
        "one",
        "two",
    ]
    assert all(chunk.choices for chunk in chunks), "usage was not asked for"
    (row,) = gateway.logged()
    message = json.loads(str(row["response"]))["choices"][0]["message"]
    assert message["content"] == "base: one two "
    assert (row["stream"], row["output_tokens"]) == (True, 3)
    assert row["time_to_first_chunk"] is not None


async def test_usage_in_a_stream_is_given_to_who_asks(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        stream = await client.chat.completions.create(
            model=ALIAS,
            messages=messages("x"),
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert chunks[-1].usage is not None


async def test_the_alias_flips_at_once_and_running_streams_keep_their_adapter(
    gateway: Gateway,
) -> None:
    old = gateway.promote("a" * 4)
    gateway.vllm.chunk_delay_s = 0.02
    async with openai(gateway) as client:
        await _until_answered_by(client, old)
        running = await client.chat.completions.create(
            model=ALIAS, messages=messages("a b c d e f g h i j"), stream=True
        )
        first = await anext(aiter(running))
        new = gateway.promote("b" * 4)
        await _until_answered_by(client, new)
        rest = [chunk async for chunk in running]

    assert {first.model, *(chunk.model for chunk in rest)} == {old}
    adapters = {row["adapter"] for row in gateway.logged()}
    assert {old, new} <= adapters


async def test_without_the_adapter_nobody_answers_in_its_place(gateway: Gateway) -> None:
    name = gateway.promote("a" * 4)
    async with openai(gateway) as client:
        await _until_answered_by(client, name)
        del gateway.vllm.adapters[name]  # restarted, and its agent has not noticed yet
        lost = await gateway.post(PATH, gateway.body())
        gateway.report(state=EngineState.STARTING)
        await asyncio.sleep(0.2)
        starting = await gateway.post(PATH, gateway.body())

    for response in (lost, starting):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "engine_unavailable"


async def test_what_is_no_answer_of_an_engine_is_not_given(gateway: Gateway) -> None:
    for instead in (b"<html>welcome</html>", b'{"id":', b'{"id":"\xff"}'):
        gateway.vllm.instead = instead

        response = await gateway.post(PATH, gateway.body())

        assert (response.status_code, response.headers["retry-after"]) == (503, "2")

    assert [row["error_type"] for row in gateway.logged()] == ["engine_unavailable"] * 3


async def test_an_engine_that_dies_in_a_stream_is_told_in_the_stream(gateway: Gateway) -> None:
    gateway.vllm.cut_after = 2
    async with openai(gateway) as client:
        stream = await client.chat.completions.create(
            model=ALIAS, messages=messages("one two three"), stream=True
        )
        with pytest.raises(APIError, match=r"did not answer|lost|early"):
            async for _ in stream:
                pass

    (row,) = gateway.logged()
    assert row["error_type"] == "engine_unavailable"


async def test_a_client_that_hangs_up_is_recorded_and_frees_the_engine(gateway: Gateway) -> None:
    gateway.vllm.chunk_delay_s = 0.05
    cuts = 30

    async def cut() -> None:
        body = gateway.body("many words " * 20, stream=True)
        async with httpx.AsyncClient() as client:
            url = f"{gateway.url}/v1/chat/completions"
            async with client.stream("POST", url, json=body, headers=gateway.headers) as response:
                async for _ in response.aiter_lines():
                    break

    await asyncio.gather(*(cut() for _ in range(cuts)))
    async with asyncio.timeout(10):
        while len(gateway.spooled()) < cuts:
            await asyncio.sleep(0.01)

    rows = gateway.logged()
    assert [row["error_type"] for row in rows] == ["client_disconnect"] * cuts
    assert gateway.vllm.finished == 0


async def test_what_was_answered_survives_kill_9(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        answers = [
            await client.chat.completions.create(model=ALIAS, messages=messages(str(n)))
            for n in range(20)
        ]
    gateway.kill()

    logged = {f"chatcmpl-{UUID(str(row['id'])).hex}" for row in gateway.logged()}
    assert logged == {answer.id for answer in answers}


async def test_sigterm_lets_running_answers_finish(gateway: Gateway) -> None:
    gateway.vllm.chunk_delay_s = 0.05
    async with openai(gateway) as client:
        stream = await client.chat.completions.create(
            model=ALIAS, messages=messages("a b c d e f g h i j"), stream=True
        )
        gateway.process.send_signal(signal.SIGTERM)
        chunks = [chunk async for chunk in stream]

    assert chunks[-1].choices[0].finish_reason == "stop"
    await asyncio.to_thread(gateway.process.wait, 10)
    assert [row["status"] for row in gateway.logged()] == [200]


async def test_unknown_models_are_404_also_streamed(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        for stream in (False, True):
            with pytest.raises(NotFoundError) as caught:
                await client.chat.completions.create(
                    model="nope", messages=messages("x"), stream=stream
                )
            assert caught.value.code == "model_not_found"


async def test_no_key_a_wrong_key_and_a_revoked_key_are_401(gateway: Gateway) -> None:
    async with openai(gateway).with_options(api_key="sk-wrong") as client:
        with pytest.raises(AuthenticationError):
            await client.models.list()
    async with httpx.AsyncClient() as anonymous:
        url = f"{gateway.url}/v1/chat/completions"
        nobody = await anonymous.post(url, json=gateway.body())
    (key,) = gateway.keys.active().values()
    gateway.keys.revoke(key.id, at=datetime.now(UTC))
    async with asyncio.timeout(5):
        while (revoked := await gateway.post(PATH, gateway.body())).status_code == 200:
            pass

    assert nobody.status_code == revoked.status_code == 401
    assert nobody.json()["error"]["code"] == "invalid_api_key"


BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"{", None),
    (b"[]", None),
    (b'{"messages": [{}]}', "model"),
    (b'{"model": 5, "messages": [{}]}', "model"),
    (b'{"model": "helpdesk"}', "messages"),
    (b'{"model": "helpdesk", "messages": "hi"}', "messages"),
    (b'{"model": "helpdesk", "messages": []}', "messages"),
    (b'{"model": "helpdesk", "messages": [{}], "stream": "yes"}', "stream"),
    (b'{"model": "helpdesk", "messages": [{}], "n": 1000000}', "n"),
    (b'{"model": "helpdesk", "messages": [{}], "metadata": {"a": 1}}', "metadata"),
    (
        b'{"model": "helpdesk", "messages": [{}], "stream": true, "stream_options": 1}',
        "stream_options",
    ),
    (b'{"model": "helpdesk", "messages": ["\xff"]}', None),
    (b'{"model": "helpdesk", "messages": [{}], "x": ' + b"9" * 5000 + b"}", None),
    (b'{"model": "helpdesk", "messages": [' + b"[" * 5000 + b"]" * 5000 + b"]}", None),
]


async def test_bad_bodies_are_400_and_name_the_field(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
        for body, param in BAD_BODIES:
            response = await client.post("/v1/chat/completions", content=body)

            error = response.json()["error"]
            assert response.status_code == 400, body
            assert error["type"] == "invalid_request_error"
            assert param is None or error["param"] == param, error

    assert gateway.vllm.asked == []


async def test_a_body_over_the_limit_is_413(gateway: Gateway) -> None:
    response = await gateway.post(PATH, gateway.body("x" * 200_000))

    assert response.status_code == 413


async def test_models_list_the_aliases(gateway: Gateway) -> None:
    name = gateway.promote("a" * 4)
    await asyncio.sleep(0.2)
    async with openai(gateway) as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve(ALIAS)
        with pytest.raises(NotFoundError):
            await client.models.retrieve("nope")

    assert [model.id for model in listed] == ["base", ALIAS, f"{ALIAS}@v1"]
    assert (one.model_extra or {})["adapter"] == name


async def _until_answered_by(client: AsyncOpenAI, model: str) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        answer = await client.chat.completions.create(model=ALIAS, messages=messages("who"))
        if answer.model == model:
            return
    raise TimeoutError(f"{model} never answered")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/nothing"])
async def test_what_is_refused_has_a_request_id_all_the_same(gateway: Gateway, path: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post(path, json={}, headers={"authorization": "Bearer wrong"})

    assert answer.status_code >= 400
    assert UUID(answer.headers["x-request-id"])
