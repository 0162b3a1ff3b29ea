"""A worker with nothing behind its HTTP: real uvicorn, real sockets, calls that do as told."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import uvicorn
from fastapi import FastAPI, Request
from starlette.routing import Route

from gateway.api import envelope
from gateway.api.body import whole
from gateway.http import exchange
from gateway.http.asgi import Mounted
from gateway.http.door import Door
from gateway.http.exchange import Front, Handler
from gateway.http.server import HotProtocol
from gateway.settings import GatewaySettings

HOT = "/v1/chat/completions"
PLAIN = [(b"content-type", b"text/plain")]
STRANGER = b"X-Stranger: 1\r\n"
"""What a request says that is to be turned away for its head."""


def turns_away(request: exchange.Request, front: Front) -> bool:
    is_stranger = b"x-stranger" in request.headers
    if is_stranger:
        front.answer(401, PLAIN, b"who are you?")
    return is_stranger


class Call:
    """One call: what it was asked, and what it heard since."""

    def __init__(self, request: exchange.Request, front: Front, loop: asyncio.AbstractEventLoop):
        self.request = request
        self.front = front
        self._loop = loop
        self.gone = threading.Event()
        self.relieved = threading.Event()

    def hung_up(self) -> None:
        self.gone.set()

    def drained(self) -> None:
        self.relieved.set()

    def do(self, action: Callable[[Front], object]) -> object:
        """Run something on the worker's loop, from the test's thread."""

        async def act() -> object:
            return action(self.front)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)


class Fronts:
    """``with Fronts() as fronts``: listens on ``fronts.port``.

    Without ``fast`` uvicorn's protocol reads everything, and the hot path is an ASGI endpoint.
    """

    def __init__(self, *, fast: bool = True, **settings: float) -> None:
        self.calls: list[Call] = []
        self.answers = True
        """Whether calls are answered at once, with their bodies; else the test answers them."""
        self._arrived = threading.Condition()
        self._loop: asyncio.AbstractEventLoop
        app = FastAPI(lifespan=self._life)
        given = GatewaySettings.model_validate(settings)
        app.state.settings = given
        envelope.install(app)
        mounted = Mounted(self._accept, turns_away, max_body_bytes=given.max_body_bytes)
        app.router.routes.insert(0, Route(HOT, mounted, methods=["POST"]))
        app.add_api_route("/ordinary", self._ordinary, methods=["GET", "POST"])
        app.state.hot_paths = frozenset({HOT} if fast else ())
        app.state.accept, app.state.turns_away = self._accept, turns_away
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=partial(HotProtocol, Door(app.state, given)),  # type: ignore[arg-type]
            ws="none",
            port=0,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=given.idle_timeout_s,  # type: ignore[arg-type]
            timeout_graceful_shutdown=given.drain_s,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._is_up = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the worker did not start")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """As SIGTERM does; returns at once."""
        self._server.should_exit = True

    def until_stopped(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def call(self, number: int = 0) -> Call:
        """The call of that number, which may have to come yet."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.calls) > number, 10)
        return self.calls[number]

    def _accept(self, request: exchange.Request, front: Front) -> Handler:
        call = Call(request, front, self._loop)
        with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
        if self.answers:
            front.answer(200, PLAIN, request.body)
        return call

    async def _ordinary(self, request: Request) -> dict[str, int]:
        return {"bytes": len(await whole(request))}

    @asynccontextmanager
    async def _life(self, _: FastAPI) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        yield
