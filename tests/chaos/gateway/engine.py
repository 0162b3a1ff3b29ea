"""A fake vLLM that keeps a ledger of what it truly sent.

    python -m tests.chaos.gateway.engine NAME PORT LEDGER SEED MODEL...

An event counts once the kernel has taken its last byte, an answer in one piece likewise: what
the kernel has taken it delivers, whatever becomes of this process. Sending and counting are one
step of the event loop. SIGUSR1 is the engine's death: between two steps it writes down what was
under way and kills itself as ``kill -9`` does, so that the ledger and the sockets always agree.

Who hangs up half-closes: like vLLM it then stops at its next event, and closes.
"""

import asyncio
import os
import random
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import uvloop

from tests.chaos.gateway.ledger import Ledger, Sent
from tests.chaos.gateway.script import CHAT, Script, write

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ID = re.compile(rb"x-request-id: (\S+)", re.IGNORECASE)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_WHOLE = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
DROPS, FAILS = 0.004, 0.008
"""How often it breaks a connection without a word, and up to where it answers 500."""
WAITS_S = (0.0, 0.0, 0.0, 0.001, 0.004, 0.02)


class Engine:
    """All connections of one engine."""

    def __init__(self, name: str, ledger: Path, seed: int, models: list[str]) -> None:
        self.name = name
        self.models = frozenset(models)
        self.rng = random.Random(seed)
        self.ledger = Ledger(ledger)
        self.answering: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.die)
        with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
            listener.setblocking(False)
            while True:
                client, _ = await loop.sock_accept(listener)
                task = loop.create_task(Connection(self, client).serve())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def die(self) -> None:
        """Now: every answer under way is written down as far as it came."""
        for connection in self.answering:
            connection.note(whole=False)
        os.kill(os.getpid(), signal.SIGKILL)


class Connection:
    """One connection of the gateway: a request and its answer after the other."""

    def __init__(self, engine: Engine, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine = engine
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._got = b""
        self._news = asyncio.Event()
        self._is_gone = False
        """Whether nobody waits any more."""
        self._id = ""
        self._script: Script

    async def serve(self) -> None:
        """Until the gateway has had enough."""
        self._loop.add_reader(self._client, self._read)
        try:
            with suppress(OSError):  # the gateway broke it off, or was killed
                while request := await self._request():
                    if not await self._answer(*request):
                        break
        finally:
            self._loop.remove_reader(self._client)
            self._client.close()

    def note(self, *, whole: bool) -> None:
        """Write down what was sent of the answer under way."""
        script = self._script
        if (tokens := script.told) is not None:
            self._engine.ledger.append(
                Sent(
                    id=self._id,
                    engine=self._engine.name,
                    key=script.key,
                    name=script.name,
                    model=script.model,
                    operation=script.operation,
                    tokens=tokens,
                    whole=whole,
                )
            )

    def _read(self) -> None:
        try:
            data = self._client.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._got += data
        if not data:
            self._is_gone = True
            self._loop.remove_reader(self._client)
        self._news.set()

    async def _request(self) -> tuple[str, bytes] | None:
        """Its path and body."""
        while True:
            head, end, body = self._got.partition(b"\r\n\r\n")
            if end and (found := _LENGTH.search(head)) and len(body) >= (size := int(found[1])):
                self._got = body[size:]
                named = _ID.search(head)
                self._id = named[1].decode() if named else ""
                return head.split(b" ", 2)[1].decode(), body[:size]
            if self._is_gone:
                return None
            self._news.clear()
            await self._news.wait()

    async def _answer(self, path: str, body: bytes) -> bool:
        """Whether the connection goes on."""
        engine, asked = self._engine, msgspec.json.decode(body)
        draw = engine.rng.random()
        if asked["model"] not in engine.models:
            return await self._refused(b"404 Not Found")
        if draw < FAILS:
            return draw >= DROPS and await self._refused(b"500 Internal Server Error")
        self._script = write(asked, self._id, engine.rng, chat=path == CHAT)
        engine.answering.add(self)
        is_whole = False
        try:
            await asyncio.sleep(engine.rng.choice(WAITS_S))
            is_whole = await (self._stream() if asked.get("stream") else self._give())
        finally:
            engine.answering.discard(self)
            self.note(whole=is_whole)
        return is_whole

    async def _refused(self, status: bytes) -> bool:
        text = b'{"error":{"message":"not today","type":"x","param":null,"code":1}}'
        await self._send(_WHOLE % (status, len(text), text))
        return True

    async def _give(self) -> bool:
        if self._is_gone:
            return False
        body = self._script.whole
        await self._send(_WHOLE % (b"200 OK", len(body), body))
        self._script.tell_all()
        return True

    async def _stream(self) -> bool:
        script = self._script
        await self._send(_STREAM)
        # The end of each chunk is sent with the next one's beginning: an event is then out when
        # its frame is.
        begin = b""
        pause_s = self._engine.rng.choice(WAITS_S) / 4
        for event, told in script.events:
            if self._is_gone:
                return False
            await self._send(b"%s%x\r\n%s" % (begin, len(event), event))
            script.tell(told)
            begin = b"\r\n"
            await asyncio.sleep(pause_s)
        if script.breaks:
            return False
        await self._send(b"\r\n0\r\n\r\n")
        return True

    async def _send(self, data: bytes) -> None:
        """Returns in the step of the loop in which the kernel took the last byte."""
        rest = memoryview(data)
        while True:
            with suppress(BlockingIOError):
                rest = rest[self._client.send(rest) :]
            if not rest:
                return
            await self._writable()

    async def _writable(self) -> None:
        there = self._loop.create_future()
        self._loop.add_writer(self._client, lambda: there.done() or there.set_result(None))
        try:
            await there
        finally:
            self._loop.remove_writer(self._client)


def main() -> None:
    name, port, ledger, seed, *models = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Engine(name, Path(ledger), int(seed), models).listen(int(port)))


if __name__ == "__main__":
    main()
