"""uvicorn's own protocol, for what the fast front does not read, with limits that it lacks."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import GatewayError, InvalidRequest, Overloaded, TooLarge, TooSlow
from gateway.http.door import Door, Phase, Watched
from gateway.http.reply import FULL, refusal

MAX_HEAD = 64 << 10
"""Bytes of a head that are kept: the parser knows no limit."""


class Ordinary(Watched, HttpToolsProtocol):
    """Requests of any kind, for the application behind ASGI."""

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        HttpToolsProtocol.__init__(self, config, server_state, app_state, _loop)
        Watched.__init__(self, door)
        self._head_bytes = 0
        self._last_words: GatewayError | None = None
        """What is said when the answers under way are whole."""

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._phase is Phase.CLOSING or self._last_words is not None:
            return
        if self._phase is Phase.IDLE:
            self._wait(Phase.HEAD)
        before = self._phase
        super().data_received(data)
        if self._phase is Phase.HEAD:
            self._head_bytes = self._head_bytes + len(data) if before is Phase.HEAD else len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(TooLarge(f"The headers are over the limit of {MAX_HEAD} bytes."))
        elif self._held and self._door.is_full:
            self._refuse(Overloaded(FULL))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        self._let_go()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins, perhaps while another is being answered."""
        super().on_message_begin()
        self._wait(Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Its head is whole. What the parser lets pass and HTTP/1.1 does not, is refused here."""
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in {"1.0", "1.1"} or hosts > 1 or (hosts == 0 and version == "1.1"):
            raise ValueError("not HTTP/1.1")
        super().on_headers_complete()
        self._wait(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        """A piece of its body. What nobody waits for is not kept."""
        super().on_body(body)
        if not self.cycle.response_complete:
            self._hold(len(body))

    def on_message_complete(self) -> None:
        """It is whole."""
        self._let_go()
        super().on_message_complete()
        self._wait(Phase.ANSWER)

    def on_response_complete(self) -> None:
        """It is answered. How long the connection may be idle then, uvicorn sees to."""
        super().on_response_complete()
        if not self.cycle.response_complete:
            return
        if self._last_words is not None:
            self._refuse(self._last_words)
        elif self._phase is Phase.ANSWER:
            self._wait(Phase.IDLE)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is refused in the envelope too."""
        self._refuse(InvalidRequest(msg))

    def look(self, now: float) -> None:
        """A request that is not read on, or that comes before its turn, takes no time."""
        is_early = self._phase is Phase.HEAD and self._is_answering()
        if (is_early or self.flow.read_paused) and not self.clogged:
            self._since = now
        super().look(now)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expired(self, phase: Phase) -> None:
        if phase in {Phase.READER, Phase.CLOSING}:
            self.transport.abort()
        elif phase is Phase.IDLE:
            self._close()
        else:
            self._refuse(TooSlow("The request did not arrive in time."))

    def _refuse(self, error: GatewayError) -> None:
        """Say why in its turn, and hear no more; but let the client read it."""
        if self.transport.is_closing():
            return
        if self._is_answering():
            if self._phase is not Phase.BODY:
                self._last_words = error
                return
            if self.pipeline or self.cycle.response_started:
                self._close()
                return
            # The application hears that its client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._wait(Phase.CLOSING)
        self.transport.write(refusal(error))
        self.transport.write_eof()
        self.flow.resume_reading()

    def _close(self) -> None:
        self._wait(Phase.CLOSING)
        self.transport.close()
