"""Cuts a stream into whole server-sent events, reads its usage, leaves out what was not asked."""

from abc import ABC, abstractmethod
from collections import defaultdict

import msgspec
from msgspec import Struct

from gateway.log.answer import CompletionDetails, Usage
from gateway.surface.hidden import USAGE, Hidden

DONE = b"data: [DONE]\n\n"
"""The last event. What a model says cannot look like it: in JSON a line break is escaped."""


class Events(ABC):
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
    @abstractmethod
    def usage(self) -> Usage | None:
        """What the events so far tell of tokens; None while they tell nothing."""

    @abstractmethod
    def _whole(self, events: bytes) -> bytes: ...


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
                try:
                    chunk = _chunk.decode(event.removeprefix(b"data: "))
                except msgspec.DecodeError:  # the engine's fault, and the client's to judge
                    continue
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
        thoughts = [one.completion_tokens_details for one in latest.values()]
        told = [one.reasoning_tokens or 0 for one in thoughts if one is not None]
        return Usage(
            prompt_tokens=sum(prompts.values()),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in latest.values()),
            completion_tokens_details=CompletionDetails(sum(told)) if told else None,
        )


class _Told(Struct):
    usage: Usage | None = None


class _Named(Struct):
    usage: Usage | None = None
    message: _Told | None = None
    response: _Told | None = None


_named = msgspec.json.Decoder(_Named)


class NamedEvents(Events):
    """Of surfaces whose events have names, on lines of their own."""

    _telling: tuple[bytes, ...]
    """The events with usage."""
    _last: tuple[bytes, ...]

    def __init__(self) -> None:
        super().__init__()
        self._told: list[bytes] = []
        self._deltas = 0

    def _whole(self, events: bytes) -> bytes:
        self._deltas += self._written(events)
        if any(events.find(name) >= 0 for name in self._telling):
            self._told.append(events)
        if any(events.find(name) >= 0 for name in self._last):
            self.ended = True
        return events

    @abstractmethod
    def _written(self, events: bytes) -> int:
        """How many tokens they stand for at least."""

    @property
    def usage(self) -> Usage | None:
        """What the latest event with usage told, or else what was written at least."""
        told: Usage | None = None
        for events in self._told:
            for line in events.split(b"\n"):
                if line.startswith(b"data: ") and b'"usage"' in line:
                    told = _usage(line[6:]) or told
        if told is None and self._deltas == 0:
            return None
        told = told or Usage()
        if not told.completion_tokens:
            told.completion_tokens = self._deltas
        return told


class MessageEvents(NamedEvents):
    """Of Anthropic's Messages.

    The first event tells the prompt's tokens exactly (though not how many the cache gave), the
    last but one all. A cut stream's answer is counted by its deltas, each a token or more.
    """

    _telling = (b"event: message_start\n", b"event: message_delta\n")
    _last = (b"event: message_stop\n", b"event: error\n")

    def _written(self, events: bytes) -> int:
        deltas = events.count(b"event: content_block_delta\n")
        return deltas - events.count(b'"type":"signature_delta"') if deltas else 0


class ResponseEvents(NamedEvents):
    """Of Responses.

    Only the last event tells of tokens. Of a cut stream the prompt's are not known, and its
    answer is counted by its deltas, each a token or more.
    """

    _telling = _last = (
        b"event: response.completed\n",
        b"event: response.incomplete\n",
        b"event: response.failed\n",
        b"event: error\n",
    )

    def _written(self, events: bytes) -> int:
        return events.count(b".delta\ndata: ")


def _usage(payload: bytes) -> Usage | None:
    try:
        event = _named.decode(payload)
    except msgspec.DecodeError:
        return None
    told = event.message or event.response
    return told.usage if told else event.usage
