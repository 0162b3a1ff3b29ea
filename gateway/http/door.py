"""What the connections of one worker share: whom they call, and how long they may take."""

import asyncio
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum, auto
from math import inf

from starlette.datastructures import State
from uvicorn.server import ServerState

from gateway.http.exchange import Accept, TurnsAway
from gateway.http.head import request_lines
from gateway.http.sweep import Sweep
from gateway.settings import GatewaySettings

LINGER_S = 2.0
"""How long a client that was refused may still be sending, so that it reads why."""
LOOKS = 8
"""Looks within the shortest deadline: one is noticed at most a quarter of it late."""
MAX_PERIOD_S = 0.5
BODIES = 32
"""Bodies of the largest size that may be arriving at once."""
SPARE_DESCRIPTORS = 256
"""For all that is neither a client's connection nor an engine's, and for those being refused."""


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    """A request's first byte."""
    HEAD = auto()
    """The rest of its head."""
    BODY = auto()
    """The rest of its body."""
    ANSWER = auto()
    """Us."""
    READER = auto()
    """The client to read on."""
    CLOSING = auto()
    """The last bytes to go out, or the client to notice."""


class Door:
    """Where clients come in.

    When the first one does, start-up must have set three things in the application's ``state``:
    ``hot_paths``, the paths that are answered by the fast front, ``accept``, which answers them,
    and ``turns_away``, which sees who asks before the body is taken. Without them every request
    is an ordinary one.
    """

    def __init__(self, state: State, settings: GatewaySettings) -> None:
        self._state = state
        self.max_body_bytes = settings.max_body_bytes
        self.max_connections = min(settings.connections, _room(settings.upstream_connections))
        self.arriving = 0
        """Bytes of bodies that are here and not whole yet."""
        self.limits = {
            Phase.IDLE: settings.idle_timeout_s,
            Phase.HEAD: settings.header_timeout_s,
            Phase.BODY: settings.body_timeout_s,
            Phase.ANSWER: inf,
            Phase.READER: settings.idle_timeout_s,
            Phase.CLOSING: LINGER_S,
        }
        """Seconds."""
        self.draining = False
        """Whether each answer is its connection's last."""
        self.accept: Accept
        self.turns_away: TurnsAway
        self.lines: Mapping[bytes, str]
        self._drain_s = settings.drain_s
        self._server: ServerState | None = None
        self._loop: asyncio.AbstractEventLoop
        self._sweep: Sweep
        self._default_headers: object = None
        self._constant = b""

    def enter(self, server: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        """A connection is made. All of them are ``Watched``, and in ``server.connections``."""
        if self._server is None:
            self._server, self._loop = server, loop
            self.lines = request_lines(getattr(self._state, "hot_paths", ()))
            if self.lines:
                self.accept, self.turns_away = self._state.accept, self._state.turns_away
            period_s = min(MAX_PERIOD_S, min(self.limits.values()) / LOOKS)
            self._sweep = Sweep(self._look, loop, period_s=period_s)
        self._sweep.start()

    @property
    def is_full(self) -> bool:
        """Whether no more of any body can be taken."""
        return self.arriving > BODIES * self.max_body_bytes

    def drain(self) -> None:
        """Close what is idle, a look later: a request that is on its way is still answered.

        What runs may finish until the drain time is over; then it is cut.
        """
        if not self.draining:
            self.draining = self._state.draining = True
            self.limits[Phase.IDLE] = 0.0
            self._loop.call_later(self._drain_s, self._cut)

    def constant(self) -> bytes:
        """The lines that all answers have. uvicorn makes them anew each second, for the date."""
        assert self._server is not None  # noqa: S101 - there is a connection
        headers = self._server.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._constant = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._constant

    def _look(self, now: float) -> bool:
        assert self._server is not None  # noqa: S101 - there is a connection
        for connection in list(self._server.connections):
            if isinstance(connection, Watched):
                connection.look(now)
        return bool(self._server.connections)

    def _cut(self) -> None:
        assert self._server is not None  # noqa: S101 - there is a connection
        for connection in list(self._server.connections):
            connection.transport.abort()


class Watched(ABC):
    """A connection that waits for something, and not for ever."""

    __slots__ = ("_door", "_held", "_phase", "_since")

    def __init__(self, door: Door) -> None:
        self._door = door
        self._phase = Phase.IDLE
        self._since = 0.0
        self._held = 0
        """Bytes of a body that is not whole yet."""

    @property
    @abstractmethod
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to."""

    def look(self, now: float) -> None:
        """See whether it has waited for too long. The first look starts the clock."""
        phase = self._phase
        if self.clogged and phase is not Phase.CLOSING:
            phase = Phase.READER
        if not self._since:
            self._since = now
        elif now - self._since > self._door.limits[phase]:
            self._expired(phase)

    def _wait(self, phase: Phase) -> None:
        self._phase = phase
        self._since = 0.0

    def _hold(self, size: int) -> None:
        """So much more of a body is here."""
        self._held += size
        self._door.arriving += size

    def _let_go(self) -> None:
        """The body is whole, or will never be."""
        self._door.arriving -= self._held
        self._held = 0

    @abstractmethod
    def _expired(self, phase: Phase) -> None:
        """It has waited for too long."""


def _room(upstream: int) -> int:
    """How many clients' connections there are descriptors for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    left = limit - SPARE_DESCRIPTORS
    # A call has one to its engine at most: where there are few, each gets half.
    return max(left - upstream, left // 2, 1)
