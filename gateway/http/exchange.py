"""What the two ends of a call are to each other: the client's side, the call, the engine's side.

Everything here is called on the event loop's thread and returns at once. No task, future or
queue stands between a byte that arrives and the same byte going out.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

Headers = list[tuple[bytes, bytes]]


class Request(msgspec.Struct, frozen=True):
    """A whole request, as either front has read it."""

    path: str
    headers: Mapping[bytes, bytes]
    """Names in lower case. What was sent more than once is joined with commas."""
    body: bytes
    arrived: float
    """``time.perf_counter()`` when the last byte was there."""


class Front(Protocol):
    """The client's side of one call: where its answer goes. Calls after a hang-up do nothing."""

    @property
    def clogged(self) -> bool:
        """Whether the client reads slower than it is written to; ``Handler.drained`` follows."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; the front adds its length."""

    def begin(self, status: int, headers: Headers) -> None:
        """A streamed answer begins."""

    def write(self, data: bytes) -> None:
        """A piece of it."""

    def end(self, data: bytes = b"") -> None:
        """Its last piece."""

    def abort(self) -> None:
        """Break the connection: the client must not take what it has for a whole answer."""


class Handler(Protocol):
    """The call, as its front sees it."""

    def hung_up(self) -> None:
        """The client is gone. Called at most once, and never after the answer was whole."""

    def drained(self) -> None:
        """The client has caught up."""


Accept = Callable[[Request, Front], Handler]
"""What a front calls with each request on a hot path. It may answer before it returns."""


TurnsAway = Callable[[Request, Front], bool]
"""What a front calls with a request whose body is still coming, empty here: whether it was answered
for its head alone. Who may not ask has no memory taken."""


class Leg(Protocol):
    """One request to an engine, under way."""

    def cancel(self) -> None:
        """Break the connection now. The listener hears nothing more."""

    def hang_up(self) -> None:
        """Tell the engine that nobody waits any more, and go on listening to what it has sent.

        Half-closes the connection: what the engine wrote before it noticed still comes in, so
        that it can be metered; then ``done`` or ``failed``, within a second or so.
        """

    def pause(self) -> None:
        """Stop reading, so that the engine is held back."""

    def resume(self) -> None:
        """Read on."""


class Listener(Protocol):
    """The call, as its engine's side sees it. Exactly one of ``done`` and ``failed`` comes last."""

    def head(self, status: int, content_type: bytes) -> None:
        """The answer has begun."""

    def data(self, piece: bytes) -> None:
        """A piece of its body, as it came, without the framing of HTTP."""

    def done(self) -> None:
        """The body is whole."""

    def failed(self, why: str) -> None:
        """No connection, a broken one, a timeout, or an answer that is not HTTP."""
