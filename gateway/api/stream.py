"""Cuts a stream of bytes into whole server-sent events, and leaves out what was not asked for."""

from gateway.api.hidden import Hidden

DONE = b"data: [DONE]\n\n"
"""The last event. What a model says cannot look like it: in JSON a line break is escaped."""


class EventStream:
    """Whole events, as they come, without what is ``hidden``."""

    def __init__(self, hidden: Hidden) -> None:
        self._hidden = hidden
        self._rest = b""

    def whole(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes."""
        data = self._rest + piece if self._rest else piece
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            self._rest = data
            return b""
        self._rest = data[cut:]
        return self._hidden.of_events(data if cut == len(data) else data[:cut])
