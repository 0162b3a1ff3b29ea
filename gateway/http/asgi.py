"""The same calls for requests that came in some other way: chunked, over HTTP/1.0, in a test."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import Message, Receive, Scope, Send

from gateway.errors import TooLarge
from gateway.http.exchange import Accept, Handler, Headers, Request, TurnsAway
from gateway.surface.envelope import encoded

MAX_WAITING = 64 << 10
"""Bytes that wait to be sent before the call hears that its client is slow."""

_JSON = [(b"content-type", b"application/json")]


class Mounted:
    """An ASGI endpoint that has its requests answered by ``accept``."""

    def __init__(self, accept: Accept, turns_away: TurnsAway, *, max_body_bytes: int) -> None:
        self._accept = accept
        self._turns_away = turns_away
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        front = Sender()
        path, headers = scope["path"], _joined(scope["headers"])
        if self._turns_away(Request(path, headers, b"", time.perf_counter()), front):
            await front.run(send)
            return
        try:
            body = await self._body(receive)
        except TooLarge as error:
            front.answer(error.status, [*_JSON, (b"connection", b"close")], encoded(error))
            await front.run(send)
            return
        if body is None:
            return
        front.handler = self._accept(Request(path, headers, body, time.perf_counter()), front)
        watch = asyncio.create_task(_until_gone(receive))
        watch.add_done_callback(front.hang_up)
        try:
            await front.run(send)
        finally:
            watch.remove_done_callback(front.hang_up)
            watch.cancel()
            front.hang_up()

    async def _body(self, receive: Receive) -> bytes | None:
        """None when the client leaves before its end. Raises TooLarge."""
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body_bytes:
                raise TooLarge(f"The body is over the limit of {self._max_body_bytes} bytes.")
            if not message.get("more_body", False):
                return b"".join(pieces)


class Sender:
    """The client's side of a call: keeps what the call writes until ASGI has taken it."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self._messages: deque[Message] = deque()
        self._waiting = 0
        """Bytes in them."""
        self._written = asyncio.Event()
        self._is_over = False

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return self._waiting > MAX_WAITING

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.end(body)

    def begin(self, status: int, headers: Headers) -> None:
        """A streamed answer begins."""
        self._put({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, data: bytes) -> None:
        """A piece of it."""
        if data:
            self._put({"type": "http.response.body", "body": data, "more_body": True})

    def end(self, data: bytes = b"") -> None:
        """Its last piece."""
        self._put({"type": "http.response.body", "body": data, "more_body": False})
        self._is_over = True

    def abort(self) -> None:
        """Leave the answer unfinished: the server breaks the connection then."""
        self._is_over = True
        self._written.set()

    def hang_up(self, _: object = None) -> None:
        """The client is gone, unless it has its answer."""
        if self._is_over:
            return
        self._is_over = True
        self._messages.clear()
        self._written.set()
        if self.handler is not None:
            self.handler.hung_up()

    async def run(self, send: Send) -> None:
        """Send what is written, until it is all or nobody reads it."""
        while True:
            while self._messages:
                message = self._messages.popleft()
                with suppress(OSError):  # the client is gone: the watch tells the call
                    await send(message)
                self._sent(len(message.get("body", b"")))
            if self._is_over:
                return
            self._written.clear()
            await self._written.wait()

    def _put(self, message: Message) -> None:
        if self._is_over:
            return
        self._messages.append(message)
        self._waiting += len(message.get("body", b""))
        self._written.set()

    def _sent(self, size: int) -> None:
        was_clogged = self.clogged
        self._waiting -= size
        if was_clogged and not self.clogged and not self._is_over and self.handler is not None:
            self.handler.drained()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """By name; what was sent more than once is one list, as RFC 9110 has it."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined
