"""One connection to an engine: writes a request, reads its answer, tells the listener."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from gateway.http.client import Leg, Origin, Pool


class Connection(asyncio.Protocol):
    """Carries one leg after the other.

    The parser's callbacks only note what they see. The listener hears of it when all that came
    at once has been parsed, so that many small chunks are one piece, and so that what it does
    then (cancel, post again) does not happen inside the parser.
    """

    __slots__ = (
        "_has_head",
        "_heard",
        "_is_framed",
        "_is_half_closed",
        "_is_reused",
        "_is_whole",
        "_leg",
        "_parser",
        "_persists",
        "_pieces",
        "_pool",
        "_status",
        "_type",
        "idle_since",
        "is_lost",
        "origin",
        "transport",
    )

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self._pool = pool
        self.origin = origin
        self.idle_since = 0.0
        self.is_lost = False
        self.transport: asyncio.Transport
        self._leg: Leg | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._is_reused = False
        self._is_half_closed = False
        self._begin()

    def _begin(self) -> None:
        self._heard = False
        """Whether one byte of the answer has come."""
        self._has_head = False
        """Whether its head has come, and the listener has not heard of it."""
        self._is_framed = False
        """Whether the head says where the body ends; else it ends with the connection."""
        self._is_whole = False
        self._persists = False
        self._status = 0
        self._type = b""
        self._pieces: list[bytes] = []

    def send(self, leg: Leg) -> None:
        """Send a request; nothing else may be under way."""
        self._leg = leg
        leg.connection = self
        if leg.paused:
            self.transport.pause_reading()
        self.transport.writelines((leg.head, leg.body))

    def abort(self) -> None:
        """Break it off."""
        self._leg = None
        self.transport.abort()

    def half_close(self) -> bool:
        """Say that no more comes. False when that cannot be said."""
        self._is_half_closed = True
        if self.transport.is_closing() or not self.transport.can_write_eof():
            return False
        self.transport.write_eof()
        return True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is open."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed, by whomever."""
        self.is_lost = True
        leg, self._leg = self._leg, None
        self._pool.lost(self)
        del self._parser
        if leg is None or leg.is_over:
            return
        if self._status >= 200 and not self._is_framed and exc is None:
            self._pool.over(leg)
            leg.listener.done()
        elif self._is_reused and not (self._heard or self._is_half_closed or leg.is_resent):
            self._pool.again(leg)
        else:
            why = "the client hung up" if self._is_half_closed else "the connection broke"
            self._pool.fail(leg, f"{why}: {exc}" if exc else why)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        leg = self._leg
        if leg is None:
            self.transport.abort()  # it speaks unasked
            return
        self._heard = True
        wrong = ""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            wrong = "the engine changed the protocol"
        except httptools.HttpParserError as error:
            wrong = f"the answer is not HTTP: {error}"
        self._tell(leg)
        if leg.is_over:
            return
        if self._is_whole:
            self._end(leg, may_persist=not wrong)
        elif wrong:
            self._pool.fail(leg, wrong)

    def _tell(self, leg: Leg) -> None:
        """Let the listener know what has come. It may cancel meanwhile."""
        if self._has_head:
            self._has_head = False
            leg.listener.head(self._status, self._type)
        pieces = self._pieces
        if pieces and not leg.is_over:
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            leg.listener.data(piece)

    def _end(self, leg: Leg, *, may_persist: bool) -> None:
        """The answer is whole; the connection may take the next request at once."""
        self._pool.over(leg)
        self._leg = None
        transport = self.transport
        # An answer before the whole request was sent leaves the rest of it in the way.
        if (
            may_persist
            and self._persists
            and not self._is_half_closed
            and not transport.get_write_buffer_size()
        ):
            if leg.paused:
                transport.resume_reading()
            self._begin()
            self._is_reused = True
            self._pool.free(self)
        else:
            transport.abort()
        leg.listener.done()

    def on_message_begin(self) -> None:
        """Of the parser."""
        if self._is_whole:
            raise ValueError("an answer that was not asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser."""
        size = len(name)
        if size == 12 and name.lower() == b"content-type":
            self._type = value
        elif (size == 14 and name.lower() == b"content-length") or (
            size == 17 and name.lower() == b"transfer-encoding"
        ):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """Of the parser."""
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._has_head = True
            self._is_framed = self._is_framed or self._status in {204, 304}
            self._persists = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Of the parser."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Of the parser. What comes before the answer itself, 100 or 103, is passed over."""
        if self._status >= 200:
            self._is_whole = True
        else:
            self._is_framed, self._type = False, b""
