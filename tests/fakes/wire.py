"""A connection in memory: hands a protocol exactly the pieces that a test wants it to see."""

import asyncio
from collections.abc import Iterable
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.server import ServerState

from gateway.http.asgi import Mounted
from gateway.http.door import Door
from gateway.http.exchange import Accept
from gateway.http.server import HotProtocol
from gateway.settings import GatewaySettings
from tests.fakes.fronts import HOT, turns_away

QUIET = 20
"""Turns of the loop without an answer, after which none comes."""


class Wire(asyncio.Transport):
    """What the server's end of a socket does; ``sent`` is what the client would read."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.sent = b""
        self._protocol = protocol
        self._is_closing = False
        self.is_reading = True
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def write_eof(self) -> None:
        """Nothing more is read of a refused client here."""
        self.close()

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def answers(accept: Accept, pieces: Iterable[bytes], *, fast: bool) -> bytes:
    """All that a worker answers to a client that sends these pieces."""
    settings = GatewaySettings()
    mounted = Mounted(accept, turns_away, max_body_bytes=10**6)
    app = Starlette(routes=[Route(HOT, mounted, methods=["POST"])])
    app.state.hot_paths = frozenset({HOT} if fast else ())
    app.state.accept, app.state.turns_away = accept, turns_away
    config = uvicorn.Config(app, ws="none", log_level="critical", lifespan="off")
    config.load()
    server = ServerState()
    protocol = partial(HotProtocol, Door(app.state, settings))
    wire = Wire(protocol(config, server, {}, asyncio.get_running_loop()))
    for piece in pieces:
        if not wire.is_reading:
            await _settled(wire)
        if wire.is_closing():
            break
        wire.receive(piece)
    await _settled(wire)
    wire.close()
    while server.tasks or server.connections:
        await asyncio.sleep(0)
    return wire.sent


async def _settled(wire: Wire) -> None:
    """Nothing in here waits for a clock or a socket: it goes on at once or not at all."""
    quiet = 0
    while quiet < QUIET:
        before = len(wire.sent)
        await asyncio.sleep(0)
        quiet = quiet + 1 if len(wire.sent) == before else 0
