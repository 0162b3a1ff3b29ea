"""The engines' side: HTTP/1.1 requests over pooled connections, without a task for each."""

import asyncio
from collections import deque
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from gateway.http.connection import Connection
from gateway.http.exchange import Headers, Listener
from gateway.http.sweep import Sweep

CONNECT_S: Final = 5.0
IDLE_S: Final = 4.0
"""How long an unused connection is kept. vLLM closes its side after 5 s."""
HANG_UP_S: Final = 2.0
"""How long an engine may take to notice that nobody waits any more."""
PERIOD_S: Final = 0.25
TOO_LONG: Final = "the engine took too long"


class Origin:
    """One engine's address, and the connections to it that nobody uses now."""

    __slots__ = ("_prefixes", "host", "idle", "port", "tls", "url")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of an engine: http://HOST:PORT")
        self.url = parts
        self.host = parts.hostname
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        self.idle: list[Connection] = []
        self._prefixes: dict[str, bytes] = {}

    def prefix(self, path: str) -> bytes:
        """The head of a request up to the value of its length."""
        prefix = self._prefixes.get(path)
        if prefix is None:
            whole, host = self.url.path.rstrip("/") + path, self.url.netloc.rpartition("@")[2]
            prefix = f"POST {whole} HTTP/1.1\r\nhost: {host}\r\ncontent-length: ".encode("ascii")
            self._prefixes[path] = prefix
        return prefix


class Leg:
    """One request and its answer: a ``exchange.Leg``. The pool and its connections drive it."""

    __slots__ = (
        "_pool",
        "body",
        "connection",
        "deadline",
        "head",
        "is_over",
        "is_resent",
        "listener",
        "origin",
        "paused",
        "why",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        pool: "Pool",
        origin: Origin,
        head: bytes,
        body: bytes,
        listener: Listener,
        deadline: float,
    ) -> None:
        self._pool = pool
        self.origin = origin
        self.head = head
        self.body = body
        self.listener = listener
        self.deadline = deadline
        self.why = TOO_LONG
        """What it fails with when the deadline passes."""
        self.connection: Connection | None = None
        self.is_over = False
        """Whether the listener has heard, or wants to hear, its last."""
        self.is_resent = False
        """Whether it was sent again, on a new connection."""
        self.paused = False

    def cancel(self) -> None:
        """Break the connection now. The listener hears nothing more."""
        if not self.is_over:
            self._pool.over(self)
            if self.connection is not None:
                self.connection.abort()

    def hang_up(self) -> None:
        """Half-close the connection; ``done`` or ``failed`` comes within about two seconds."""
        if self.is_over:
            return
        self.why = "the client hung up"
        self.resume()
        connection = self.connection
        within_s = HANG_UP_S if connection is not None and connection.half_close() else 0.0
        self._pool.hurry(self, within_s)

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True
        if self.connection is not None and not self.is_over:
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.connection is not None and not self.is_over:
                self.connection.transport.resume_reading()


class Pool:
    """Connections to engines. Used on one event loop, which must run when it is made.

    At most ``connections`` are open at once; who comes then waits, first come, first served.
    """

    def __init__(self, *, connections: int) -> None:
        self._limit = connections
        self._loop = asyncio.get_running_loop()
        self._origins: dict[str, Origin] = {}
        self._open = 0
        """Connections that are open or being opened."""
        self._waiting: deque[Leg] = deque()
        self._legs: set[Leg] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep = Sweep(self._look, self._loop, period_s=PERIOD_S)
        self._is_closed = False

    def post(  # noqa: PLR0913 - a request is all of this
        self,
        url: str,
        path: str,
        headers: Headers,
        body: bytes,
        listener: Listener,
        *,
        timeout_s: float,
    ) -> Leg:
        """Send a request to the engine at ``url``; the whole answer may take ``timeout_s``.

        The listener hears of everything later, never before this returns. Raises ValueError when
        ``url`` is none or a header would break its line.
        """
        origin = self._origins.get(url)
        if origin is None:
            origin = self._origins[url] = Origin(url)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise ValueError(f"a header of a request breaks its line: {headers!r}")
        head = b"%b%d\r\n%b\r\n" % (origin.prefix(path), len(body), lines)
        leg = Leg(self, origin, head, body, listener, self._loop.time() + timeout_s)
        self._legs.add(leg)
        self._sweep.start()
        idle = origin.idle
        if idle:
            idle.pop().send(leg)
        else:
            self._find(leg)
        return leg

    def close(self) -> None:
        """Fail what is under way, and close all connections."""
        self._is_closed = True
        self._sweep.stop()
        for task in self._connecting:
            task.cancel()
        for leg in list(self._legs):
            self.fail(leg, "the gateway is shutting down")
        for origin in self._origins.values():
            for connection in list(origin.idle):
                connection.abort()

    def over(self, leg: Leg) -> None:
        """A leg has heard its last."""
        leg.is_over = True
        self._legs.discard(leg)

    def hurry(self, leg: Leg, within_s: float) -> None:
        """End a leg soon."""
        if within_s:
            leg.deadline = min(leg.deadline, self._loop.time() + within_s)
        else:
            self._loop.call_soon(self.fail, leg, leg.why)

    def fail(self, leg: Leg, why: str) -> None:
        """End a leg, unless it has ended."""
        if leg.is_over:
            return
        self.over(leg)
        if leg.connection is not None:
            leg.connection.abort()
        leg.listener.failed(why)

    def again(self, leg: Leg) -> None:
        """Its connection was stale: the engine had closed it before the request came."""
        leg.connection = None
        leg.is_resent = True
        if self._has_room():
            self._connect(leg)
        else:
            self._waiting.appendleft(leg)

    def free(self, connection: Connection) -> None:
        """A connection can take another request."""
        if self._is_closed:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        connection.origin.idle.append(connection)
        if self._waiting:
            self._serve()

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in connection.origin.idle:
            connection.origin.idle.remove(connection)
        self._open -= 1
        self._serve()

    def _find(self, leg: Leg) -> None:
        """Give it a connection, a new one, or a place in the queue."""
        if self._waiting or not self._place(leg):
            leg.why = "no connection was free in time"
            self._waiting.append(leg)

    def _serve(self) -> None:
        """Who waits longest is next."""
        while self._waiting and not self._is_closed:
            leg = self._waiting[0]
            if not leg.is_over and not self._place(leg):
                break
            self._waiting.popleft()

    def _place(self, leg: Leg) -> bool:
        if leg.origin.idle:
            leg.origin.idle.pop().send(leg)
        elif self._has_room():
            self._connect(leg)
        else:
            return False
        leg.why = TOO_LONG
        return True

    def _has_room(self) -> bool:
        """Whether one more may be opened. If not, an idle one to another engine makes room."""
        if self._open < self._limit:
            return True
        for origin in self._origins.values():
            if origin.idle:
                origin.idle.pop(0).abort()
                break
        return False

    def _connect(self, leg: Leg) -> None:
        self._open += 1
        task = self._loop.create_task(self._connected(leg))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, leg: Leg) -> None:
        origin = leg.origin
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await self._loop.create_connection(
                    partial(Connection, self, origin),
                    origin.host,
                    origin.port,
                    ssl=origin.tls or None,
                )
        except OSError as error:
            self._open -= 1
            self.fail(leg, f"no connection: {error or f'none within {CONNECT_S:g} s'}")
            self._serve()
            return
        if connection.is_lost:
            self.fail(leg, "the engine closed the connection")
        elif leg.is_over:
            self.free(connection)
        else:
            connection.send(leg)

    def _look(self, now: float) -> bool:
        """Close what has been unused for long; fail what takes too long."""
        is_idle = False
        for origin in self._origins.values():
            while origin.idle and now - origin.idle[0].idle_since > IDLE_S:
                origin.idle.pop(0).abort()
            is_idle = is_idle or bool(origin.idle)
        for leg in [leg for leg in self._legs if now > leg.deadline]:
            self.fail(leg, leg.why)
        return is_idle or bool(self._legs)
