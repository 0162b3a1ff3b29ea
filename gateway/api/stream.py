"""Cuts a stream of bytes into whole server-sent events, and leaves out what was not asked for."""

DONE = b"data: [DONE]"


class EventStream:
    """Whole events, as they come.

    With ``usage`` False the usage event, which the gateway asked for and the client did not,
    is left out.
    """

    def __init__(self, *, usage: bool) -> None:
        self._usage = usage
        self._rest = b""

    def whole(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes."""
        data = self._rest + piece if self._rest else piece
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            self._rest = data
            return b""
        self._rest = data[cut:]
        out = data if cut == len(data) else data[:cut]
        if self._usage or b'"choices":[]' not in out:
            return out
        kept = (event for event in out.split(b"\n\n") if b'"choices":[]' not in event)
        return b"\n\n".join(kept)
