"""The other side of the wire: an OpenAI server that behaves like vLLM and answers at once."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from aiohttp import web

from tests.fakes.surfaces import OTHERS, Answer, asks, event

Message = dict[str, Any]

_MISTAKES = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""Of a client that sent something else than the API takes."""
PROMPT_IDS = [1, 2, 3]
END_ID = 0


def echo(body: dict[str, Any]) -> Message:
    """Answers with the model's name and the last message: shows who answered what."""
    return {"role": "assistant", "content": f"{body['model']}: {body['messages'][-1]['content']}"}


class FakeVllm:
    """``async with FakeVllm("base") as vllm``: listens on ``vllm.url``; keeps what it was asked."""

    def __init__(
        self,
        base: str = "base",
        *,
        answer: Callable[[dict[str, Any]], Message] = echo,
        chunk_delay_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.base = base
        self.adapters: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        """The headers of each of them."""
        self.finished = 0
        """Answers that were sent whole."""
        self.cut_after: int | None = None
        """Chunks after which a stream's connection is dropped, as when the engine dies."""
        self.instead: bytes | None = None
        """What comes instead of a whole answer, as from a proxy that stands in the way."""
        self.status: int | None = None
        """What it refuses every call with."""
        self.refuses: int | None = None
        """The status of an error that a stream tells of in its first event, after HTTP's 200."""
        self.drops = False
        """Whether it breaks the connection instead of answering."""
        self.hold: asyncio.Event | None = None
        """What every answer waits for."""
        self.told: list[int] = []
        """The tokens that each stream has told of so far: what is to be metered."""
        self._answer = answer
        self.chunk_delay_s = chunk_delay_s
        self._port = port
        self._runner: web.AppRunner

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/chat/completions", self._chat)
        for path, answer in OTHERS.items():
            app.router.add_post(path, partial(self._other, answer))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        models = [{"id": self.base, "object": "model", "parent": None}]
        models += [{"id": name, "object": "model", "parent": self.base} for name in self.adapters]
        return web.json_response({"object": "list", "data": models})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.adapters.pop(body["lora_name"], None) is None:
            return _refusal(404, f"{body['lora_name']} is not loaded")
        return web.Response(text="Success")

    async def _other(
        self, answer: Callable[[dict[str, Any], str], Answer], request: web.Request
    ) -> web.StreamResponse:
        """One of the other surfaces; ``chunk_delay_s`` and ``cut_after`` are of events there."""
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        if body["model"] not in {self.base, *self.adapters}:
            return _refusal(404, f"The model `{body['model']}` does not exist.")
        try:
            whole, events = answer(body, request.headers.get("x-request-id", "none"))
        except _MISTAKES as error:
            return _refusal(400, f"that is no request: {error!r}")
        if not body.get("stream"):
            self.finished += 1
            return web.json_response(whole)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, piece in enumerate(events):
            if number == self.cut_after and request.transport is not None:
                request.transport.abort()
                return response
            await response.write(piece)
            await asyncio.sleep(self.chunk_delay_s)
        self.finished += 1
        return response

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        if self.hold is not None:
            await self.hold.wait()
        if self.drops and request.transport is not None:
            request.transport.abort()
        if self.status is not None:
            return _refusal(self.status, "not today")
        if body["model"] not in {self.base, *self.adapters}:
            return _refusal(404, f"The model `{body['model']}` does not exist.")
        head = {"id": f"chatcmpl-{request.headers.get('x-request-id', 'none')}", "created": 1}
        head |= {"model": body["model"]}
        try:
            message = self._answer(body)
        except _MISTAKES as error:
            return _refusal(400, f"that is no request: {error!r}")
        text = message.get("content") or ""
        usage = {"prompt_tokens": 5, "completion_tokens": len(text.split()), "total_tokens": 5}
        if body.get("stream"):
            return await self._stream(request, body, head, message, usage)
        choice = {"index": 0, "message": message, **_tokens(body, 4, 5), "finish_reason": "stop"}
        head |= {"prompt_token_ids": PROMPT_IDS if body.get("return_token_ids") else None}
        if self.instead is not None:
            return web.Response(body=self.instead, content_type="text/html")
        self.finished += 1
        return web.json_response(
            head
            | {"object": "chat.completion", "choices": [choice] * (body.get("n") or 1)}
            | {"usage": usage}
        )

    async def _stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        head: dict[str, Any],
        message: Message,
        usage: dict[str, int],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.refuses is not None:
            refusal = {"message": "no such token", "type": "BadRequestError", "param": None}
            await response.write(event({"error": refusal | {"code": self.refuses}}))
            await response.write(b"data: [DONE]\n\n")
            return response
        head = head | {"object": "chat.completion.chunk"}
        prompt_ids = PROMPT_IDS if body.get("return_token_ids") else None
        first: dict[str, Any] = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": first, "logprobs": None, "finish_reason": None}

        def so_far(written: int) -> dict[str, Any]:
            """The usage that every event tells where it was asked to."""
            told = usage | {"completion_tokens": min(written, usage["completion_tokens"])}
            return {"usage": told} if asks(body, "continuous_usage_stats") else {}

        stream = len(self.told)
        self.told.append(0)
        prompt = so_far(0) | {"prompt_token_ids": prompt_ids}
        await response.write(event(head | {"choices": [choice]} | prompt))
        deltas: list[dict[str, Any]] = [
            {"content": f"{word} "} for word in (message.get("content") or "").split()
        ]
        if body.get("return_token_ids") or body.get("logprobs"):
            deltas.append({})  # a token without text is told of only to who asks for tokens
        for number, delta in enumerate(deltas, 1):
            if number == self.cut_after and request.transport is not None:
                request.transport.abort()
                return response
            choice = {"index": 0, "delta": delta, "finish_reason": None} | _tokens(body, number)
            await response.write(event(head | {"choices": [choice]} | so_far(number)))
            self.told[stream] = number
            await asyncio.sleep(self.chunk_delay_s)
        last = {"index": 0, "delta": {}, "finish_reason": "stop"} | _tokens(body, END_ID)
        await response.write(event(head | {"choices": [last]} | so_far(len(deltas))))
        if asks(body, "include_usage"):
            await response.write(event(head | {"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        self.finished += 1
        return response


def _tokens(body: dict[str, Any], *ids: int) -> dict[str, Any]:
    """What vLLM says of the tokens of one choice or event: null where it was not asked."""
    content = [
        {"token": f"t{one}", "logprob": -0.5, "bytes": [], "top_logprobs": []} for one in ids
    ]
    return {
        "logprobs": {"content": content} if body.get("logprobs") else None,
        "token_ids": list(ids) if body.get("return_token_ids") else None,
    }


def _refusal(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "NotFoundError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
