"""HTTP/1.1 as clients of all manners speak it: byte by byte, so that any byte can be the last."""

import asyncio
import re
import socket
from dataclasses import dataclass
from typing import Any, Self

import msgspec

_STATUS = slice(9, 12)
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
# What is refused before it is a call has an id, too, but neither an alias nor a row in the log.
_ID = re.compile(rb"x-request-id: (\S+)(?=.*x-ratchet-alias: )", re.IGNORECASE | re.DOTALL)
_SMALL = 4096
DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"error":'
"""How a stream ends that lacks the rest."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole one."""

    status: int
    id: str
    body: bytes
    closes: bool


class Line:
    """A connection to whichever worker the kernel gives it to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int, *, narrow: bool = False) -> Self:
        """``narrow`` for one that takes little at once, so that its reader holds others back."""
        line = socket.socket()
        line.setblocking(False)
        if narrow:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        try:
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
            limit = _SMALL if narrow else 1 << 20
            return cls(*await asyncio.open_connection(sock=line, limit=limit))
        except OSError:
            line.close()
            raise

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> Answer:
        """Raises OSError or EOFError when it does not come to its end."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is not None:
            body = await self._reader.readexactly(int(length[1]))
        else:
            body = await self._chunks()
        named = _ID.search(head)
        return Answer(
            int(head[_STATUS]),
            named[1].decode().replace("-", "") if named else "",
            body,
            b"connection: close" in head.lower(),
        )

    async def part(self, size: int) -> None:
        """Wait for so many bytes, or for the end of an answer that is shorter."""
        seen = b""
        while len(seen) < size:
            piece = await self._reader.read(min(size - len(seen), _SMALL))
            seen += piece
            if not piece or _is_whole(seen):
                return

    async def all_but_the_end(self) -> None:
        """Wait for all of a stream but what ends it, or for a whole answer but its last byte."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        if (length := _LENGTH.search(head)) is not None:
            await self._reader.readexactly(max(0, int(length[1]) - 1))
        else:
            event = b""
            while not (event.endswith(DONE) or BROKEN in event):
                event = await self._reader.readuntil(b"\n\n")

    async def _chunks(self) -> bytes:
        pieces = []
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
            if not size:
                return b"".join(pieces)

    def close(self, *, rudely: bool = False) -> None:
        """``rudely``: with RST, as a process that is killed while data waits for it."""
        if rudely:
            self._writer.transport.abort()
        else:
            self._writer.close()


def request(path: str, secret: str, body: bytes) -> bytes:
    return (
        b"POST %s HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    ) % (path.encode(), secret.encode(), len(body), body)


def asking(path: str, model: str, mark: str, **more: Any) -> bytes:
    """A body whose prompt is ``mark``."""
    said: dict[str, Any] = {"prompt": mark}
    if path.startswith("/v1/chat"):
        said = {"messages": [{"role": "user", "content": mark}]}
    return msgspec.json.encode({"model": model} | said | more)


def _is_whole(seen: bytes) -> bool:
    head, end, body = seen.partition(b"\r\n\r\n")
    if not end:
        return False
    length = _LENGTH.search(head)
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])
