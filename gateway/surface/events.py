"""Cuts a stream into whole server-sent events, reads its usage, leaves out what was not asked."""

from collections import defaultdict

import msgspec
from msgspec import Struct

from gateway.log.answer import Usage
from gateway.surface.hidden import USAGE, Hidden

DONE = b"data: [DONE]\n\n"
"""The last event. What a model says cannot look like it: in JSON a line break is escaped."""


class Events:
    """One stream, as it comes from the engine."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False
        """Whether the surface's last event has been seen."""

    def feed(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes, as the client gets them."""
        data = self._rest + piece if self._rest else piece
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            self._rest = data
            return b""
        if cut == len(data):
            self._rest = b""
            return self._whole(data)
        self._rest = data[cut:]
        return self._whole(data[:cut])

    @property
    def usage(self) -> Usage | None:
        """What the events so far tell of tokens; None while they tell nothing."""
        raise NotImplementedError

    def _whole(self, events: bytes) -> bytes:
        raise NotImplementedError


class _Choice(Struct):
    index: int = 0


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None


_chunk = msgspec.json.Decoder(_Chunk)


class ChunkEvents(Events):
    """Of chat completions and completions.

    Every event tells the usage so far, so that of a cut stream is exact to its last event. What a
    parser of the engine holds back (the frame of a tool call) is told with the next event.
    """

    def __init__(self, hidden: Hidden) -> None:
        super().__init__()
        self._hidden = hidden
        self._told: list[bytes] = []
        self._is_one = hidden.choices == 1

    def _whole(self, events: bytes) -> bytes:
        if events.rfind(USAGE) >= 0:
            if self._is_one:
                self._told = [events]
            else:
                self._told.append(events)
        if events.endswith(DONE):
            self.ended = True
        return self._hidden.of_events(events)

    @property
    def usage(self) -> Usage | None:
        """Each choice counts for itself, until the last event counts all of them."""
        latest: dict[int, Usage] = {}
        for events in self._told:
            for event in events.split(b"\n\n"):
                if USAGE not in event:
                    continue
                chunk = _chunk.decode(event.removeprefix(b"data: "))
                if chunk.usage is None or not chunk.choices:
                    return chunk.usage
                latest[chunk.choices[0].index] = chunk.usage
        return self._sum(latest) if latest else None

    def _sum(self, latest: dict[int, Usage]) -> Usage:
        a_prompt = self._hidden.choices // self._hidden.prompts
        prompts: dict[int, int] = defaultdict(int)
        for index, usage in latest.items():
            prompts[index // a_prompt] = usage.prompt_tokens or 0
        if len(latest) == 1:
            return next(iter(latest.values()))
        return Usage(
            prompt_tokens=sum(prompts.values()),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in latest.values()),
        )
