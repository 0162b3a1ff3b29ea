"""The clients' side: HTTP/1.1 read and written here for the hot paths, by uvicorn for the rest.

``python -m gateway`` gives ``partial(HotProtocol, Door(app.state, settings))`` to uvicorn as its
``http``. See ``Door`` for what start-up must set in ``app.state``.
"""

import asyncio
import logging
import time
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.errors import GatewayError, Overloaded, TooLarge, TooSlow
from gateway.http.door import Door, Phase, Watched
from gateway.http.exchange import Handler, Request
from gateway.http.head import END, Head, may_become, read
from gateway.http.ordinary import Ordinary
from gateway.http.reply import CLOSE, FULL, Reply, refusal

logger = logging.getLogger(__name__)

REFUSALS = 128
"""Connections beyond the most that are told so; those beyond them are broken off."""
MAX_AHEAD = 64 << 10
"""Bytes of later requests that are kept while one is answered; then reading pauses."""


class HotProtocol(Watched, asyncio.Protocol):
    """One connection, until a request comes that is not understood to the letter."""

    __slots__ = (
        "_arguments",
        "_body",
        "_buffer",
        "_clogged",
        "_handler",
        "_head",
        "_is_paused",
        "_missing",
        "_reading",
        "_reply",
        "transport",
    )

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(door)
        loop = _loop or asyncio.get_running_loop()
        self._arguments = (config, server_state, app_state, loop)
        self._buffer = b""
        self._head: Head
        self._body = bytearray()
        self._missing = 0
        """Bytes of the body that have not come."""
        self._reply: Reply | None = None
        """The answer under way."""
        self._handler: Handler | None = None
        self._reading = False
        """Whether the loop over the buffer runs, further up the stack."""
        self._is_paused = False
        self._clogged = False
        self.transport: asyncio.Transport

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return self._clogged

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        self.transport = transport
        _, server, _, loop = self._arguments
        server.connections.add(self)  # type: ignore[arg-type]
        self._door.enter(server, loop)
        excess = len(server.connections) - self._door.max_connections
        if excess > REFUSALS:
            transport.abort()
        elif excess > 0:
            self._refuse(Overloaded(FULL))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's name
        """The client is gone, or was sent away."""
        self._arguments[1].connections.discard(self)
        self._phase = Phase.CLOSING
        self._let_go()
        reply, handler = self._reply, self._handler
        self._reply = self._handler = None
        if reply is not None:
            reply.forget()
        if handler is not None:
            handler.hung_up()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._phase is Phase.CLOSING:
            return
        if self._missing:
            self._take(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._read()

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        self._clogged = True
        self._since = 0.0

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._clogged = False
        self._since = 0.0
        if self._handler is not None:
            self._handler.drained()
        elif self._phase is not Phase.CLOSING:
            self._read()

    def shutdown(self) -> None:
        """uvicorn says that the worker ends."""
        self._door.drain()

    def constant(self) -> bytes:
        """The lines that every answer on this connection has now."""
        lines = self._door.constant()
        last = self._missing or not self._head.persists or self._door.draining
        return lines + CLOSE if last else lines

    def answered(self) -> None:
        """The answer is whole."""
        self._reply = self._handler = None
        if self._missing:
            self._linger()
            return
        if not self._head.persists or self._door.draining:
            self._close()
            return
        self._wait(Phase.IDLE)
        if self._buffer:
            self._read()

    def broken_off(self) -> None:
        """The answer will never be whole."""
        self._reply = self._handler = None
        self._close()

    def _read(self) -> None:
        """Begin with the requests in the buffer: each when the one before it is answered."""
        if self._reading:
            return
        self._reading = True
        while self._buffer and self._may_read() and self._begins():
            pass
        self._reading = False
        if (len(self._buffer) > MAX_AHEAD) is not self._is_paused:
            self._pause_or_resume()

    def _may_read(self) -> bool:
        return self._reply is None and not self._clogged and self._phase is not Phase.CLOSING

    def _begins(self) -> bool:
        """Whether the first request in the buffer could be taken out of it."""
        data = self._buffer
        end = data.find(END)
        if end < 0 and may_become(data, self._door.lines):
            if self._phase is not Phase.HEAD:
                self._wait(Phase.HEAD)
            return False
        head = read(data, end, self._door.lines) if end >= 0 else None
        if head is None:
            self._hand_over()
            return False
        if head.length > self._door.max_body_bytes:
            limit = self._door.max_body_bytes
            self._refuse(TooLarge(f"The body is over the limit of {limit} bytes."))
            return False
        self._head = head
        start = end + len(END)
        body = data[start : start + head.length]
        self._buffer = data[start + head.length :]
        self._missing = head.length - len(body)
        if not self._missing:
            self._call(body)
        elif not self._is_turned_away():
            self._wait(Phase.BODY)
            self._keep(body)
        return True

    def _take(self, data: bytes) -> None:
        """A piece of a body that came in several."""
        piece = data[: self._missing]
        self._missing -= len(piece)
        if self._missing:
            self._keep(piece)
            return
        self._buffer = data[len(piece) :]
        body = bytes(self._body + piece)
        self._body.clear()
        self._let_go()
        self._call(body)
        if self._buffer:
            self._read()

    def _keep(self, piece: bytes) -> None:
        self._body += piece
        self._hold(len(piece))
        if self._door.is_full:
            self._refuse(Overloaded(FULL))

    def _call(self, body: bytes) -> None:
        """Have the request answered, now or later."""
        self._phase = Phase.ANSWER
        self._reply = reply = Reply(self)
        try:
            handler = self._door.accept(self._request(body), reply)
        except Exception:  # the border: one request's failure is not the others'
            logger.exception("a request failed")
            self._fail(reply)
            return
        if self._reply is reply:
            self._handler = handler

    def _is_turned_away(self) -> bool:
        """Whether the request was answered for its head; nobody waits for its body then."""
        self._phase = Phase.ANSWER
        self._reply = reply = Reply(self)
        try:
            is_over = self._door.turns_away(self._request(b""), reply)
        except Exception:  # the border, as above
            logger.exception("a request failed")
            self._fail(reply)
            return True
        if not is_over:
            self._reply = None
        return is_over

    def _request(self, body: bytes) -> Request:
        return Request(self._head.path, self._head.headers, body, time.perf_counter())

    def _fail(self, reply: Reply) -> None:
        """Say so, unless the answer was given before it failed."""
        reply.forget()
        if self._reply is reply:
            self._refuse(GatewayError("The gateway failed. It has logged why."))

    def _hand_over(self) -> None:
        """Let uvicorn have the connection, with all that was not answered here."""
        config, server, app_state, loop = self._arguments
        server.connections.discard(self)
        ordinary = Ordinary(self._door, config, server, app_state, loop)
        ordinary.connection_made(self.transport)
        self.transport.set_protocol(ordinary)
        data, self._buffer = self._buffer, b""
        ordinary.data_received(data)
        if self._door.draining:
            ordinary.shutdown()

    def _pause_or_resume(self) -> None:
        self._is_paused = not self._is_paused
        if self._is_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _expired(self, phase: Phase) -> None:
        if phase in {Phase.READER, Phase.CLOSING}:
            self.transport.abort()
        elif phase is Phase.IDLE:
            self._close()
        else:
            self._refuse(TooSlow("The request did not arrive in time."))

    def _refuse(self, error: GatewayError) -> None:
        """Say why and hear no more, but let the client read it: an answer to what is still being
        sent would be lost with the connection."""
        self._reply = None
        self.transport.write(refusal(error))
        self._linger()

    def _linger(self) -> None:
        self._buffer, self._missing = b"", 0
        self._body.clear()
        self._let_go()
        self._wait(Phase.CLOSING)
        self.transport.write_eof()

    def _close(self) -> None:
        self._wait(Phase.CLOSING)
        self.transport.close()
