"""The pool against engines that answer in every odd way, written out by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from gateway.http import client
from gateway.http.client import Pool
from gateway.http.exchange import Leg

JSON = [(b"content-type", b"application/json")]
FIXED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
"""What the gateway runs on, and what everybody else does."""


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.status = 0
        self.type = b""
        self.body = b""
        self.pieces = 0
        self.why = ""
        self.ended = 0
        self._over = asyncio.Event()
        self._news = asyncio.Event()

    def head(self, status: int, content_type: bytes) -> None:
        self.status, self.type = status, content_type

    def data(self, piece: bytes) -> None:
        self.body += piece
        self.pieces += 1
        self._news.set()

    def done(self) -> None:
        self.ended += 1
        self._over.set()

    def failed(self, why: str) -> None:
        self.why = why
        self.ended += 1
        self._over.set()

    async def over(self) -> "Heard":
        await asyncio.wait_for(self._over.wait(), 20)
        return self

    async def piece(self) -> None:
        await asyncio.wait_for(self._news.wait(), 20)
        self._news.clear()


Script = Callable[["Engine", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """A server that follows a script on each connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self.gate = asyncio.Event()
        self.closed = asyncio.Event()
        """Set when a client has closed its side."""

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[str]":
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            self.gate.set()
            server.close()
            while self._open:
                for writer in self._open:
                    writer.transport.abort()
                await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            await self._script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._open.discard(writer)

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """The next whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        whole = head + await reader.readexactly(length)
        self.requests.append(whole)
        return whole


def says(*pieces: bytes, close: bool = False) -> Script:
    """Answers each request with these bytes, in one write each."""

    async def script(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await engine.request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if close:
                return

    return script


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    opened = Pool(connections=4)
    yield opened
    opened.close()
    for _ in range(5):  # turns of the loop, in which transports are told that they are closed
        await asyncio.sleep(0)


def post(pool: Pool, url: str, heard: Heard, body: bytes = b"{}", timeout_s: float = 20.0) -> Leg:
    return pool.post(url, "/v1/chat/completions", JSON, body, heard, timeout_s=timeout_s)


async def ask(pool: Pool, url: str, body: bytes = b"{}", timeout_s: float = 20.0) -> Heard:
    heard = Heard()
    post(pool, url, heard, body, timeout_s)
    return await heard.over()


async def test_a_request_is_written_to_the_letter(pool: Pool) -> None:
    engine = Engine(says(FIXED))
    async with engine.running() as url:
        heard = await ask(pool, url + "/base/", b'{"a":1}')

    assert (heard.status, heard.type, heard.body) == (200, b"text/plain", b"hello")
    assert engine.requests == [
        b"POST /base/v1/chat/completions HTTP/1.1\r\nhost: %b\r\ncontent-length: 7\r\n"
        b'content-type: application/json\r\n\r\n{"a":1}' % url.removeprefix("http://").encode()
    ]


WHOLE = {
    "a length": ([FIXED], 200, b"hello"),
    "chunks": ([CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"], 200, b"hello"),
    "chunks, byte by byte": (
        [bytes([byte]) for byte in CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-A: b\r\n\r\n"],
        200,
        b"hello",
    ),
    "no content": ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
    "not modified": ([b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], 304, b""),
    "an empty body": ([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], 200, b""),
    "100 before": ([b"HTTP/1.1 100 Continue\r\n\r\n", FIXED], 200, b"hello"),
    "103 before": ([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + FIXED], 200, b"hello"),
    "an error": ([FIXED.replace(b"200 OK", b"503 Busy")], 503, b"hello"),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_is_heard_and_its_connection_used_again(pool: Pool, name: str) -> None:
    pieces, status, body = WHOLE[name]
    engine = Engine(says(*pieces))
    async with engine.running() as url:
        answers = [await ask(pool, url), await ask(pool, url)]

    assert [(heard.status, heard.body, heard.why) for heard in answers] == [(status, body, "")] * 2
    assert engine.connections == 1


LAST = {
    "connection: close": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "something after it": FIXED + FIXED,
    "garbage after it": FIXED + b"garbage",
}


@pytest.mark.parametrize("name", LAST)
async def test_an_answer_that_ends_its_connection_is_whole_too(pool: Pool, name: str) -> None:
    engine = Engine(says(LAST[name], close=name in {"until the end", "HTTP/1.0"}))
    async with engine.running() as url:
        answers = [await ask(pool, url), await ask(pool, url)]

    assert [(heard.body, heard.why, heard.ended) for heard in answers] == [(b"hello", "", 1)] * 2
    assert engine.connections == 2


BROKEN = {
    "nothing": (b"", b""),
    "half a head": (FIXED[:20], b""),
    "half a body": (FIXED[:-2], b"hel"),
    "half a chunk": (CHUNKED + b"5\r\nhel", b"hel"),
    "no last chunk": (CHUNKED + b"3\r\nhel\r\n", b"hel"),
    "garbage": (b"garbage\r\n\r\n", b""),
    "a chunk's size": (CHUNKED + b"3\r\nhel\r\nx\r\n", b"hel"),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"",
    ),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"",
    ),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\nhello", b""),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_fails_after_what_came_of_it(pool: Pool, name: str) -> None:
    sent, body = BROKEN[name]
    engine = Engine(says(sent, close=True))
    async with engine.running() as url:
        heard = await ask(pool, url)

    assert heard.why
    assert (heard.body, heard.ended) == (body, 1)
    assert len(engine.requests) == 1


async def test_many_chunks_at_once_are_one_piece(pool: Pool) -> None:
    engine = Engine(says(CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"))
    async with engine.running() as url:
        heard = await ask(pool, url)

    assert heard.body == b"x" * 1000
    assert heard.pieces < 10


async def test_nobody_listens_at_a_refused_port(pool: Pool) -> None:
    engine = Engine(says(FIXED))
    async with engine.running() as url:
        pass

    heard = await ask(pool, url)

    assert "no connection" in heard.why


async def test_an_engine_that_closed_its_idle_connection_is_asked_again(pool: Pool) -> None:
    async def once_each(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await engine.request(reader)
        writer.write(FIXED)
        if engine.connections == 1:
            # Closes as the second request comes, without reading it.
            await reader.readexactly(1)
            writer.transport.abort()
        else:
            await engine.gate.wait()

    engine = Engine(once_each)
    async with engine.running() as url:
        first, second = await ask(pool, url), await ask(pool, url)

    assert (first.body, second.body, second.ended) == (b"hello", b"hello", 1)
    assert engine.connections == 2


async def test_an_engine_that_dies_of_every_request_is_not_asked_for_ever(pool: Pool) -> None:
    async def dies(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await engine.request(reader)
        if engine.connections == 1:
            writer.write(FIXED)
            await engine.request(reader)

    engine = Engine(dies)
    async with engine.running() as url:
        await ask(pool, url)
        heard = await ask(pool, url)

    assert heard.why
    assert len(engine.requests) == 3


async def test_an_answer_before_the_request_is_whole_ends_the_connection(pool: Pool) -> None:
    async def impatient(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(FIXED.replace(b"200 OK", b"413 Too Large"))
        await engine.gate.wait()

    engine = Engine(impatient)
    async with engine.running() as url:
        first = await ask(pool, url, b"x" * 50_000_000)
        second = await ask(pool, url, b"x" * 50_000_000)

    assert (first.status, first.why, second.status) == (413, "", 413)
    assert engine.connections == 2


async def test_who_finds_no_connection_waits_its_turn(pool: Pool) -> None:
    async def held(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await engine.request(reader)
            await engine.gate.wait()
            writer.write(FIXED)

    engine = Engine(held)
    async with engine.running() as url:
        waiting = [Heard() for _ in range(10)]
        for number, heard in enumerate(waiting):
            post(pool, url, heard, b"%d" % number)
        while len(engine.requests) < 4:
            await asyncio.sleep(0)
        engine.gate.set()
        for heard in waiting:
            await heard.over()

    assert {heard.body for heard in waiting} == {b"hello"}
    assert engine.connections == 4
    assert sorted(request[-1:] for request in engine.requests) == [b"%d" % n for n in range(10)]


async def test_idle_connections_make_room_for_another_engine() -> None:
    pool = Pool(connections=1)
    one, other = Engine(says(FIXED)), Engine(says(FIXED))
    async with one.running() as first, other.running() as second:
        answers = [await ask(pool, url) for url in (first, second, first)]
        pool.close()

    assert [heard.body for heard in answers] == [b"hello"] * 3
    assert (one.connections, other.connections) == (2, 1)


async def silent(
    engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Begins an answer, and no more; notices when the client closes its side."""
    await engine.request(reader)
    writer.write(CHUNKED + b"3\r\nhel\r\n")
    await reader.read()
    engine.closed.set()
    if engine.gate.is_set():
        writer.write(b"2\r\nlo\r\n")
    else:
        await engine.gate.wait()


async def test_an_answer_that_takes_too_long_fails(pool: Pool) -> None:
    engine = Engine(silent)
    async with engine.running() as url:
        heard = await ask(pool, url, timeout_s=0.01)
        await asyncio.wait_for(engine.closed.wait(), 20)

    assert heard.why == "the engine took too long"


async def test_who_waits_for_a_connection_too_long_is_told_so() -> None:
    pool = Pool(connections=1)
    engine = Engine(silent)
    async with engine.running() as url:
        first, second = Heard(), Heard()
        post(pool, url, first)
        post(pool, url, second, timeout_s=0.01)
        await second.over()
        pool.close()

    assert second.why == "no connection was free in time"
    assert first.why == "the gateway is shutting down"


async def test_a_cancelled_leg_hears_nothing_more(pool: Pool) -> None:
    engine = Engine(silent)
    async with engine.running() as url:
        heard = Heard()
        leg = post(pool, url, heard)
        await heard.piece()
        leg.cancel()
        leg.cancel()
        await asyncio.wait_for(engine.closed.wait(), 20)

    assert (heard.body, heard.ended) == (b"hel", 0)


async def test_a_leg_is_cancelled_before_it_is_connected(pool: Pool) -> None:
    engine = Engine(says(FIXED))
    async with engine.running() as url:
        heard = Heard()
        post(pool, url, heard).cancel()
        other = await ask(pool, url)

    assert heard.ended == 0
    assert (other.body, len(engine.requests)) == (b"hello", 1)


async def test_a_hang_up_tells_the_engine_and_hears_what_it_still_says(pool: Pool) -> None:
    engine = Engine(silent)
    engine.gate.set()
    async with engine.running() as url:
        heard = Heard()
        leg = post(pool, url, heard)
        await heard.piece()
        leg.hang_up()
        await heard.over()

    assert (heard.body, heard.ended) == (b"hello", 1)
    assert heard.why.startswith("the client hung up")


async def test_an_engine_that_does_not_notice_a_hang_up_is_left(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "HANG_UP_S", 0.01)
    engine = Engine(silent)
    async with engine.running() as url:
        heard = Heard()
        leg = post(pool, url, heard)
        await heard.piece()
        leg.hang_up()
        await heard.over()

    assert heard.why == "the client hung up"


async def test_a_hang_up_before_the_connection_fails_at_once(pool: Pool) -> None:
    engine = Engine(silent)
    async with engine.running() as url:
        heard = Heard()
        post(pool, url, heard).hang_up()
        assert heard.ended == 0
        await heard.over()
        while not engine.connections:  # it is made all the same, for the next who asks
            await asyncio.sleep(0)

    assert (heard.why, heard.ended) == ("the client hung up", 1)
    assert engine.requests == []


async def test_a_paused_leg_holds_its_engine_back(pool: Pool) -> None:
    size = 200 << 20
    written = 0

    async def pours(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal written
        await engine.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while written < size:
            writer.write(b"x" * (1 << 20))
            written += 1 << 20
            if writer.transport.get_write_buffer_size() > 0:
                engine.closed.set()
            await writer.drain()

    class Counts(Heard):
        def data(self, piece: bytes) -> None:
            self.pieces += len(piece)
            self._news.set()

    engine = Engine(pours)
    async with engine.running() as url:
        heard = Counts()
        leg = post(pool, url, heard)
        await heard.piece()
        leg.pause()
        await asyncio.wait_for(engine.closed.wait(), 20)
        held = heard.pieces
        leg.resume()
        await heard.over()

    assert held < size
    assert heard.pieces == size


async def test_a_listener_may_ask_again_as_soon_as_it_is_done(pool: Pool) -> None:
    engine = Engine(says(FIXED))
    async with engine.running() as url:
        second = Heard()

        class Chained(Heard):
            def done(self) -> None:
                post(pool, url, second)
                super().done()

        first = Chained()
        post(pool, url, first)
        await second.over()

    assert (first.body, second.body, engine.connections) == (b"hello", b"hello", 1)


async def test_an_unused_connection_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE_S", 0.0)

    async def notices(
        engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await engine.request(reader)
        writer.write(FIXED)
        await reader.read()
        engine.closed.set()

    engine = Engine(notices)
    async with engine.running() as url:
        await ask(pool, url)
        await asyncio.wait_for(engine.closed.wait(), 20)

    assert engine.connections == 1


async def test_what_is_no_request_is_refused_at_once(pool: Pool) -> None:
    with pytest.raises(ValueError, match="no URL"):
        post(pool, "ftp://x", Heard())
    with pytest.raises(ValueError, match="breaks its line"):
        pool.post("http://x", "/", [(b"a", b"b\r\nc: d")], b"", Heard(), timeout_s=1)


async def test_closing_the_pool_fails_what_runs() -> None:
    pool = Pool(connections=4)
    engine = Engine(silent)
    async with engine.running() as url:
        heard = Heard()
        post(pool, url, heard)
        await heard.piece()
        pool.close()
        await asyncio.wait_for(engine.closed.wait(), 20)

    assert (heard.why, heard.ended) == ("the gateway is shutting down", 1)
