"""The other side of an HTTP guard: says what a test wants, and keeps what it was asked."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
ALLOW: Json = {"action": "allow"}


class FakeGuard:
    """``async with FakeGuard() as guard``: listens on ``guard.url``, one path per guard's name."""

    def __init__(self) -> None:
        self.says: dict[str, Callable[[Json], object]] = {}
        """By name, what the verdict on a question is; ``allow`` for a name not in here."""
        self.asked: list[tuple[str, Json]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.silent = False
        """Whether it never answers."""
        self._runner: web.AppRunner
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{name}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        question = await request.json()
        self.asked.append((name, question))
        self.headers.append(dict(request.headers))
        if self.silent:
            await asyncio.Event().wait()
        say = self.says.get(name, lambda _: ALLOW)
        return web.json_response(say(question), status=self.status)
