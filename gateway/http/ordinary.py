"""uvicorn's own protocol, for what the fast front does not read, with limits that it lacks."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import GatewayError, InvalidRequest, TooLarge, TooSlow
from gateway.http.door import Door, Phase, Watched
from gateway.http.reply import refusal

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

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._phase is Phase.CLOSING:
            return
        if self._phase is Phase.IDLE:
            self._wait(Phase.HEAD)
        before = self._phase
        super().data_received(data)
        if self._phase is Phase.HEAD:
            self._head_bytes = self._head_bytes + len(data) if before is Phase.HEAD else len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(TooLarge(f"The headers are over the limit of {MAX_HEAD} bytes."))

    def on_message_begin(self) -> None:
        """A request begins, perhaps while another is being answered."""
        super().on_message_begin()
        self._wait(Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        super().on_headers_complete()
        self._wait(Phase.BODY)

    def on_message_complete(self) -> None:
        """It is whole."""
        super().on_message_complete()
        self._wait(Phase.ANSWER)

    def on_response_complete(self) -> None:
        """It is answered. How long the connection may be idle then, uvicorn sees to."""
        super().on_response_complete()
        if self._phase is Phase.ANSWER and self.cycle.response_complete:
            self._wait(Phase.IDLE)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is refused in the envelope too."""
        self._refuse(InvalidRequest(msg))

    def look(self, now: float) -> None:
        """While reading is held back, what does not arrive is not the client's fault."""
        if self.flow.read_paused and not self.clogged:
            self._since = now
        super().look(now)

    def _expired(self, phase: Phase) -> None:
        if phase in {Phase.READER, Phase.CLOSING}:
            self.transport.abort()
        elif phase is Phase.IDLE:
            self._close()
        else:
            self._refuse(TooSlow("The request did not arrive in time."))

    def _refuse(self, error: GatewayError) -> None:
        """Say why, unless something else is being said, and close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(refusal(error))
        self._close()

    def _close(self) -> None:
        self._wait(Phase.CLOSING)
        self.transport.close()
