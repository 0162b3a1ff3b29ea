"""Writes answers in HTTP/1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.errors import GatewayError
from gateway.http.exchange import Headers
from gateway.surface.envelope import encoded, headers_of

if TYPE_CHECKING:
    from gateway.http.server import HotProtocol

LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"connection: close\r\n"
FULL = "Too much is being sent to the gateway at once. Please try again shortly."


class Reply:
    """The answer to one request of a connection: a ``Front``."""

    __slots__ = ("_connection",)

    def __init__(self, connection: HotProtocol) -> None:
        self._connection: HotProtocol | None = connection

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return self._connection is not None and self._connection.clogged

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer in one write."""
        connection = self._connection
        if connection is None:
            return
        lines = _lines(headers)
        self._connection = None
        connection.transport.write(
            b"%b%bcontent-length: %d\r\n%b\r\n%b"
            % (STATUS_LINE[status], connection.constant(), len(body), lines, body)
        )
        connection.answered()

    def begin(self, status: int, headers: Headers) -> None:
        """The head of a stream, at once: its first piece may take long."""
        connection = self._connection
        if connection is None:
            return
        lines = _lines(headers)
        connection.transport.write(
            b"%b%btransfer-encoding: chunked\r\n%b\r\n"
            % (STATUS_LINE[status], connection.constant(), lines)
        )

    def write(self, data: bytes) -> None:
        """A chunk. An empty one would be the last, so there is none."""
        if data and self._connection is not None:
            self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes = b"") -> None:
        """The last chunks."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        connection.transport.write(
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_CHUNK
        )
        connection.answered()

    def abort(self) -> None:
        """Close without the last chunk. What was written before still goes out."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.broken_off()

    def forget(self) -> None:
        """The client is gone."""
        self._connection = None


def _lines(headers: Headers) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise ValueError(f"a header of an answer breaks its line: {headers!r}")
    return lines


def refusal(error: GatewayError) -> bytes:
    """A whole answer in OpenAI's envelope, the connection's last."""
    body = encoded(error)
    more = "".join([f"{name}: {value}\r\n" for name, value in headers_of(error).items()])
    return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        STATUS_LINE[error.status],
        len(body),
        more.encode(),
        CLOSE,
        body,
    )
