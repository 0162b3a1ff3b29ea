"""A house whose only model is somebody else's: no engine is started, and it answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from learner.cli.house import House
from learner.errors import ConfigError
from learner.settings import load
from tests.fakes.vllm import FakeVllm

PORT = 27510


@pytest.fixture
async def elsewhere() -> AsyncIterator[FakeVllm]:
    async with FakeVllm("mini") as fake:
        yield fake


@pytest.fixture
def config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: FakeVllm) -> Path:
    monkeypatch.setenv("MINI_KEY", "sk-theirs")
    provider = {
        "model": "openai/mini",
        "api_base": f"{elsewhere.url}/v1",
        "api_key_env": "MINI_KEY",
    }
    said = {"gateway": {"port": PORT}, "models": [{"alias": "small", "provider": provider}]}
    path = tmp_path / "ratchet.yaml"
    path.write_text(yaml.safe_dump(said))
    return path


async def test_a_providers_model_is_ready_and_answers_without_an_engine(
    config_path: Path, elsewhere: FakeVllm
) -> None:
    asked = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
    async with House(load(config_path), config_path) as house:
        await house.ready()
        headers = {"authorization": f"Bearer {house.secret}"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as client:
            response = await client.post(f"{house.url}/chat/completions", json=asked)

    answer = response.json()
    assert response.status_code == 200, answer
    assert answer["choices"][0]["message"]["content"] == "mini: hello"
    assert answer["id"] == f"chatcmpl-{response.headers['x-request-id'].replace('-', '')}"
    assert response.headers["x-ratchet-alias"] == "small"
    assert elsewhere.asked[0] == {"model": "mini", "messages": asked["messages"]}


async def test_a_variable_that_is_not_set_is_named_before_anything_starts(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINI_KEY")
    house = House(load(config_path), config_path)

    with pytest.raises(ConfigError, match=r"models\.0\.provider\.api_key_env: MINI_KEY is not set"):
        await house.__aenter__()


async def test_the_password_of_redis_must_be_set_before_anything_starts(
    config_path: Path,
) -> None:
    config = load(config_path)
    limits = "rediss://:$NO_SUCH_PASSWORD@127.0.0.1:6379"
    gateway = config.gateway.model_copy(update={"limits": limits})
    house = House(config.model_copy(update={"gateway": gateway}), config_path)

    with pytest.raises(ConfigError, match=r"gateway\.limits: NO_SUCH_PASSWORD is not set"):
        await house.__aenter__()
