"""Stored completions and erasures by the official client: a real gateway, a real learner."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletion

from tests.fakes.vllm import PROMPT_IDS
from tests.integration.conftest import ALIAS, Gateway

CAPTURE = {"GATEWAY_CAPTURE": {ALIAS: {"token_ids": True, "logprobs": True}}}


def openai(gateway: Gateway) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)


async def answered(client: AsyncOpenAI, text: str, **more: Any) -> ChatCompletion:
    answer: ChatCompletion = await client.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": text}], **({"store": True} | more)
    )
    return answer


@pytest.mark.usefixtures("learner")
async def test_what_was_stored_is_listed_read_changed_and_deleted(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        first = await answered(client, "one", metadata={"color": "red"}, user="ann")
        second = await answered(client, "two", metadata={"color": "blue"})
        await answered(client, "three", store=False)
        await answered(client, "four", store=None)

        stored = client.chat.completions
        listed = [one.id async for one in stored.list(limit=1)]
        newest = [one.id async for one in stored.list(order="desc")]
        red = [one.id async for one in stored.list(metadata={"color": "red"}, model=ALIAS)]
        one = await stored.retrieve(first.id)
        said = [message async for message in stored.messages.list(first.id)]
        changed = await stored.update(first.id, metadata={"color": "green"})
        green = [one.id async for one in stored.list(metadata={"color": "green"})]
        gone = await stored.delete(second.id)
        with pytest.raises(NotFoundError):
            await stored.retrieve(second.id)
        left = [one.id async for one in stored.list()]

    assert listed == [first.id, second.id]
    assert newest == [second.id, first.id]
    assert red == [first.id]
    assert one.choices[0].message.content == "base: one"
    assert (one.model_extra or {})["metadata"] == {"color": "red"}
    assert [(message.role, message.content) for message in said] == [("user", "one")]
    assert (changed.model_extra or {})["metadata"] == {"color": "green"}
    assert green == left == [first.id]
    assert gone.deleted


@pytest.mark.usefixtures("learner")
async def test_a_stream_is_stored_as_the_answer_it_was(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        stream = await client.chat.completions.create(
            model=ALIAS, messages=[{"role": "user", "content": "one"}], store=True, stream=True
        )
        chunks = [chunk async for chunk in stream]
        one = await client.chat.completions.retrieve(chunks[0].id)

    assert one.choices[0].message.content == "base: one "
    assert one.choices[0].finish_reason == "stop"


@pytest.mark.usefixtures("learner")
@pytest.mark.parametrize("settings", [CAPTURE])
async def test_what_was_captured_is_not_in_what_was_stored(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        answer = await answered(client, "one")
        one = await client.chat.completions.retrieve(answer.id)

    assert not one.choices[0].logprobs
    assert str(PROMPT_IDS) not in json.dumps(one.to_dict())


@pytest.mark.usefixtures("learner")
async def test_another_tenants_completions_are_not_there(gateway: Gateway) -> None:
    _, secret = gateway.keys.create("other", tenant="umbrella", at=datetime.now(UTC))
    async with openai(gateway) as client, openai(gateway).with_options(api_key=secret) as other:
        answer = await answered(client, "one")
        await _until_known(gateway, secret)
        listed = [one.id async for one in other.chat.completions.list()]
        with pytest.raises(NotFoundError):
            await other.chat.completions.retrieve(answer.id)
        with pytest.raises(NotFoundError):
            await other.chat.completions.delete(answer.id)
        kept = await client.chat.completions.retrieve(answer.id)

    assert listed == []
    assert kept.id == answer.id


@pytest.mark.usefixtures("learner")
async def test_what_the_learner_refuses_speaks_the_same_envelope(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        answer = await answered(client, "one")
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.update(answer.id, metadata={"k": "v" * 513})
        with pytest.raises(NotFoundError) as missing:
            await client.chat.completions.retrieve("chatcmpl-nothing")

    for error in (refused.value, missing.value):
        assert error.type == "invalid_request_error"
        assert error.message


@pytest.mark.usefixtures("learner")
async def test_a_user_who_is_forgotten_is_gone_at_once(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        of_ann = await answered(client, "one", user="ann")
        of_bob = await answered(client, "two", user="bob")

        receipt = await gateway.post("/v1/erasures", {"user": "ann", "reason": "she asked"})

        with pytest.raises(NotFoundError):
            await client.chat.completions.retrieve(of_ann.id)
        kept = await client.chat.completions.retrieve(of_bob.id)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as plain:
        listed = await plain.get("/v1/erasures")
        again = await plain.get(f"/v1/erasures/{receipt.json()['id']}")

    assert receipt.status_code == 200, receipt.text
    assert kept.id == of_bob.id
    assert [one["id"] for one in listed.json()["data"]] == [receipt.json()["id"]]
    assert again.json()["reason"] == "she asked"


async def _until_known(gateway: Gateway, secret: str) -> None:
    """The gateway notices a new key at its next refresh."""
    async with httpx.AsyncClient(base_url=gateway.url) as client, asyncio.timeout(5):
        headers = {"authorization": f"Bearer {secret}"}
        while (await client.get("/v1/models", headers=headers)).status_code == 401:
            pass


@pytest.mark.usefixtures("learner")
async def test_a_change_sent_again_changes_nothing_that_came_since(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        answer = await answered(client, "one", user="ann")
        stored = client.chat.completions
        again = {"Idempotency-Key": "u1"}

        await stored.update(answer.id, metadata={"color": "red"}, extra_headers=again)
        await stored.update(answer.id, metadata={"color": "blue"})
        last = await stored.update(answer.id, metadata={"color": "red"}, extra_headers=again)

    assert last.metadata == {"color": "blue"}


@pytest.mark.usefixtures("learner")
async def test_an_erasure_sent_again_is_one_erasure(gateway: Gateway) -> None:
    again = {"idempotency-key": "e1"}

    first = await gateway.post("/v1/erasures", {"user": "ann"}, **again)
    second = await gateway.post("/v1/erasures", {"user": "ann"}, **again)
    other = await gateway.post("/v1/erasures", {"user": "ann"})

    assert first.status_code == 200
    assert first.json() == second.json()
    assert other.json()["id"] != first.json()["id"]
