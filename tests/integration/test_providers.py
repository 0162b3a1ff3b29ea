"""Models elsewhere, through the real litellm, against an OpenAI server of ours."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import KeyUnavailable
from gateway.http.exchange import Leg
from gateway.model import ModelOptions
from gateway.providers import CHAT, EMBEDDINGS, Providers
from gateway.routing import Target
from tests.fakes.vllm import FakeVllm

# litellm uses what pydantic has deprecated, inside its own `except Exception`.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

KEY = {"MINI_KEY": "sk-theirs"}
MESSAGES = [{"role": "user", "content": "hello there"}]


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.status = 0
        self.content_type = b""
        self.pieces: list[bytes] = []
        self.ends: list[str] = []
        self.over = asyncio.Event()
        self.began = asyncio.Event()

    def head(self, status: int, content_type: bytes) -> None:
        self.status, self.content_type = status, content_type

    def data(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.began.set()

    def done(self) -> None:
        self.ends.append("done")
        self.over.set()

    def failed(self, why: str) -> None:
        self.ends.append(why)
        self.over.set()

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.pieces))

    @property
    def events(self) -> list[Any]:
        lines = b"".join(self.pieces).split(b"\n\n")
        assert lines.pop() == b""
        assert lines.pop() == b"data: [DONE]"
        return [json.loads(line.removeprefix(b"data: ")) for line in lines]


@pytest.fixture
async def vllm() -> AsyncIterator[FakeVllm]:
    async with FakeVllm("mini") as fake:
        yield fake


class Mini:
    """A model name that somebody else answers, and the worker's providers."""

    def __init__(self, url: str) -> None:
        options = ModelOptions.model_validate(
            {"provider": {"model": "openai/mini", "api_base": url, "api_key_env": "MINI_KEY"}}
        )
        self._target = Target("mini", "openai/mini", None, None, "", "", options.provider)
        self.providers = Providers({"mini": options}, KEY)

    def open(
        self, body: dict[str, Any], *, path: str = CHAT, timeout_s: float = 20.0
    ) -> tuple[Heard, Leg]:
        heard = Heard()
        sent = json.dumps({"model": "openai/mini"} | body).encode()
        leg = self.providers.open(
            self._target, path, sent, heard, timeout_s=timeout_s, request_id="c0ffee"
        )
        return heard, leg

    async def ask(self, body: dict[str, Any], **how: Any) -> Heard:
        heard, _ = self.open(body, **how)
        await heard.over.wait()
        return heard


@pytest.fixture
async def mini(vllm: FakeVllm) -> AsyncIterator[Mini]:
    opened = Mini(f"{vllm.url}/v1")
    yield opened
    await opened.providers.close()


class Other:
    """Another server: answers ``status`` with ``answer`` to whatever comes, and keeps it."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: dict[str, Any] = {"error": {"message": "no, because", "type": "t"}}
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers["authorization"])
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def other() -> Other:
    return Other()


@pytest.fixture
async def elsewhere(other: Other) -> AsyncIterator[Mini]:
    app = web.Application()
    app.router.add_post("/{path:.*}", other.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    opened = Mini(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    yield opened
    await opened.providers.close()
    await runner.cleanup()


async def test_a_whole_answer_is_openais_with_our_id(mini: Mini, vllm: FakeVllm) -> None:
    heard = await mini.ask({"messages": MESSAGES, "temperature": 0.5, "store": True, "stop": None})

    assert (heard.status, heard.content_type, heard.ends) == (200, b"application/json", ["done"])
    assert heard.json["id"] == "chatcmpl-c0ffee"
    assert heard.json["object"] == "chat.completion"
    assert heard.json["choices"][0]["message"]["content"] == "mini: hello there"
    assert heard.json["usage"]["prompt_tokens"] == 5
    [asked] = vllm.asked
    assert asked == {"model": "mini", "messages": MESSAGES, "temperature": 0.5}


async def test_a_stream_ends_with_its_usage_alone(mini: Mini) -> None:
    heard = await mini.ask({"messages": MESSAGES, "stream": True})

    assert (heard.status, heard.content_type, heard.ends) == (200, b"text/event-stream", ["done"])
    *events, last = heard.events
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert said == "mini: hello there "
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert {event["id"] for event in heard.events} == {"chatcmpl-c0ffee"}
    assert not [event for event in events if "usage" in event]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3


async def test_embeddings_are_answered(elsewhere: Mini, other: Other) -> None:
    other.answer = {
        "object": "list",
        "model": "mini",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }

    heard = await elsewhere.ask({"input": "two words"}, path=EMBEDDINGS)

    assert heard.json["data"][0]["embedding"] == [0.5, 0.25]
    assert heard.json["usage"]["prompt_tokens"] == 2
    assert other.asked[0]["input"] in ("two words", ["two words"])
    assert other.keys == ["Bearer sk-theirs"]


async def test_other_surfaces_are_refused_with_what_there_is(mini: Mini, vllm: FakeVllm) -> None:
    heard = await mini.ask({"input": "hi"}, path="/v1/responses")

    assert (heard.status, heard.ends, vllm.asked) == (400, ["done"], [])
    assert "/v1/chat/completions and /v1/embeddings only" in heard.json["error"]["message"]


@pytest.mark.parametrize("name", ["api_base", "api_key", "base_url", "mock_response", "top_k"])
async def test_a_body_cannot_say_where_the_key_is_sent(
    mini: Mini, vllm: FakeVllm, name: str
) -> None:
    heard = await mini.ask({"messages": MESSAGES, name: "http://evil.example"})

    assert (heard.status, vllm.asked) == (400, [])
    assert heard.json["error"]["param"] == name


@pytest.mark.parametrize("status", [400, 422])
async def test_the_clients_mistakes_pass(elsewhere: Mini, other: Other, status: int) -> None:
    other.status = status

    heard = await elsewhere.ask({"messages": MESSAGES})

    assert (heard.status, heard.ends) == (status, ["done"])
    assert "no, because" in heard.json["error"]["message"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_or_model_of_ours_that_is_refused_is_the_operators_affair(
    elsewhere: Mini, other: Other, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    other.status = status

    heard = await elsewhere.ask({"messages": MESSAGES})

    assert (heard.status, heard.ends) == (0, [f"the provider answered {status}"])
    assert "api_base and key in ratchet.yaml right?" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_passes_is_a_failure_asked_once_and_no_news_to_the_operator(
    elsewhere: Mini, other: Other, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    other.status = status

    with caplog.at_level(logging.WARNING, logger="gateway.providers"):
        heard = await elsewhere.ask({"messages": MESSAGES})

    assert (heard.status, len(heard.ends), len(other.asked)) == (0, 1, 1)
    assert not [record for record in caplog.records if record.name == "gateway.providers"]


async def test_a_provider_that_is_not_there_is_a_failure() -> None:
    gone = Mini("http://127.0.0.1:1/v1")

    heard = await gone.ask({"messages": MESSAGES})
    await gone.providers.close()

    assert (heard.status, heard.ends) == (0, ["the provider answered 500"])


async def test_a_stream_that_breaks_off_fails(mini: Mini, vllm: FakeVllm) -> None:
    vllm.cut_after = 2

    heard = await mini.ask({"messages": MESSAGES, "stream": True})

    assert (heard.status, heard.ends) == (200, ["the provider broke off"])


async def test_an_answer_that_takes_too_long_fails(mini: Mini, vllm: FakeVllm) -> None:
    vllm.chunk_delay_s = 30

    heard = await mini.ask({"messages": MESSAGES, "stream": True}, timeout_s=0.3)

    assert heard.ends == ["no answer within 0.3 s"]


async def test_hanging_up_ends_the_stream_and_says_so(mini: Mini, vllm: FakeVllm) -> None:
    vllm.chunk_delay_s = 30
    heard, leg = mini.open({"messages": MESSAGES, "stream": True})
    await heard.began.wait()

    leg.hang_up()
    await heard.over.wait()

    assert heard.ends == ["hung up"]


async def test_after_a_cancel_nothing_is_heard(mini: Mini) -> None:
    before, leg = mini.open({"messages": MESSAGES})
    leg.cancel()
    hung_up, other_leg = mini.open({"messages": MESSAGES})
    other_leg.hang_up()

    await hung_up.over.wait()

    assert (before.status, before.ends) == (0, [])
    assert (hung_up.status, hung_up.ends) == (0, ["hung up"])


async def test_a_paused_stream_waits_for_its_client(mini: Mini) -> None:
    heard, leg = mini.open({"messages": MESSAGES, "stream": True})
    leg.pause()
    await heard.began.wait()
    while_paused = list(heard.ends)

    leg.resume()
    await heard.over.wait()

    assert (while_paused, heard.ends) == ([], ["done"])


def test_a_missing_key_is_said_at_the_start() -> None:
    options = ModelOptions.model_validate(
        {"provider": {"model": "openai/mini", "api_key_env": "MINI_KEY"}}
    )

    with pytest.raises(KeyUnavailable, match="MINI_KEY, the key of openai/mini, is not set"):
        Providers({"mini": options}, {})


def test_without_a_provider_litellm_is_not_loaded() -> None:
    code = (
        "import sys; from gateway.model import ModelOptions; from gateway.providers import "
        "Providers; Providers({'a': ModelOptions()}, {}); print('litellm' in sys.modules)"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    assert printed.strip() == b"False"
