"""One process in a room, from the outside."""

import asyncio
import secrets
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import socketpair
from subprocess import Popen
from typing import Self, cast

import msgspec

from gateway.errors import CallFailed, CodeInvalid, SandboxUnusable
from gateway.sandbox.inside import FAILED, WORN
from gateway.sandbox.limits import Limits
from gateway.sandbox.room import opened, refused

START_S = 15.0
"""How long a room may take to be made and its file to be loaded."""

_ASKED = struct.Struct("!I")
_ANSWERED = struct.Struct("!16sBI")


@dataclass(frozen=True, slots=True)
class Code:
    """One function of one file, as it was when it was read."""

    source: str
    file: Path
    function: str


class _Died(Exception):
    """The process is gone."""


class Worker(asyncio.Protocol):
    """Answers one call at a time. Once anything odd came from it, it is killed."""

    def __init__(self, process: "Popen[bytes]", limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._read = bytearray()
        self._nonce = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.alive = True

    @classmethod
    async def start(cls, code: Code, limits: Limits) -> Self:
        """One that has loaded the code. Raises SandboxUnusable or CodeInvalid."""
        here, there = socketpair()
        with there:
            try:
                process, told = opened(stdin=there.fileno())
            except BaseException:
                here.close()
                raise
        worker = cls(process, limits)
        loop = asyncio.get_running_loop()
        with told:
            try:
                await loop.create_unix_connection(lambda: worker, sock=here)
                await worker._load(code)
            except _Died as error:
                worker.kill()
                if why := refused(told):
                    raise SandboxUnusable(why) from error
                raise CodeInvalid(f"{code.file}:1: its process died as it loaded") from error
            except BaseException:
                worker.kill()
                raise
        return worker

    async def call(self, payload: bytes) -> bytes:
        """What the function returns. Raises CallFailed; then it may be dead."""
        limits = self._limits
        try:
            flags, said = await self._ask(payload, limits.wall_s)
        except TimeoutError as error:
            raise CallFailed(f"no answer within {limits.wall_s:g} s") from error
        except _Died as error:
            raise CallFailed(f"its process died: {error}") from error
        if flags & WORN:
            self.kill()
        if flags & FAILED:
            raise CallFailed(said.decode("utf-8", "replace"))
        return said

    def kill(self) -> None:
        """With everything in its room."""
        if not self.alive:
            return
        self.alive = False
        self._process.kill()
        self._process.wait()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket can be used."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        """The process has ended."""
        self._broken("it ended")

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        if self._answer is None or self._answer.done():
            self._broken("it spoke without being asked")
            return
        self._read += data
        if len(self._read) < _ANSWERED.size:
            return
        nonce, flags, size = _ANSWERED.unpack_from(self._read)
        whole = _ANSWERED.size + size
        if not secrets.compare_digest(nonce, self._nonce):
            self._broken("it gave what is no answer")
        elif size > self._limits.output or len(self._read) > whole:
            self._broken("it said too much")
        elif len(self._read) == whole:
            said = bytes(self._read[_ANSWERED.size :])
            self._answer.set_result((flags, said))

    async def _load(self, code: Code) -> None:
        asked = {"source": code.source, "file": str(code.file), "function": code.function}
        payload = msgspec.json.encode(asked | {"limits": asdict(self._limits)})
        try:
            flags, said = await self._ask(payload, START_S)
        except TimeoutError as error:
            raise CodeInvalid(f"{code.file}:1: it did not load within {START_S:g} s") from error
        if flags & FAILED:
            raise CodeInvalid(said.decode("utf-8", "replace"))

    async def _ask(self, payload: bytes, limit_s: float) -> tuple[int, bytes]:
        """Raises TimeoutError or _Died; whoever does not hear the end of it kills the process."""
        if not self.alive or self._transport is None:
            raise _Died("it ended")
        self._nonce = secrets.token_bytes(16)
        self._read.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((_ASKED.pack(len(payload)), payload, self._nonce))
        try:
            async with asyncio.timeout(limit_s):
                return await self._answer
        except BaseException:
            self.kill()
            raise
        finally:
            self._answer = None

    def _broken(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Died(why))
        self.kill()
