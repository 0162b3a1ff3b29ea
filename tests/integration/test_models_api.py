"""Names are listed with what they mean, to keys that may use them, by the official client."""

from datetime import UTC, datetime

import pytest
from openai import AsyncOpenAI, NotFoundError, PermissionDeniedError

from tests.integration.conftest import ALIAS, Gateway


def openai(gateway: Gateway, key: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.key, max_retries=0)


async def test_a_promoted_adapter_is_told_of_under_its_alias(gateway: Gateway) -> None:
    served = gateway.promote("abcd")

    async with openai(gateway) as client:
        while not (alias := (await client.models.retrieve(ALIAS)).model_dump())["adapter"]:
            pass  # the worker looks every few milliseconds
        listed = {model.id: model.model_dump() async for model in client.models.list()}
        tuned = (await client.models.retrieve(alias["fine_tuned_model"])).model_dump()

    assert (alias["parent"], alias["adapter"], alias["adapter_version"]) == ("base", served, 1)
    assert alias["created"] == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
    assert listed[ALIAS] == alias
    assert listed["base"]["parent"] is None
    assert listed[f"{ALIAS}@v1"]["adapter"] == tuned["adapter"] == served
    assert not any(name.startswith("ft:") for name in listed)


async def test_a_key_sees_only_the_models_it_may_use(gateway: Gateway) -> None:
    now = datetime.now(UTC)
    _, narrow = gateway.keys.create("n", tenant="acme", at=now, models=frozenset({ALIAS}))

    async with openai(gateway, narrow) as client:
        listed = [model.id async for model in client.models.list()]
        with pytest.raises(PermissionDeniedError):
            await client.models.retrieve("base")

    assert listed == [ALIAS]


async def test_a_name_that_means_nothing_is_not_found(gateway: Gateway) -> None:
    async with openai(gateway) as client:
        with pytest.raises(NotFoundError, match="does not exist"):
            await client.models.retrieve("nobody")
