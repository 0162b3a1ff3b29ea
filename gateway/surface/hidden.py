"""Takes out of an answer what the gateway asked for, for the log, and the client did not."""

from typing import Any

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_encoder = msgspec.json.Encoder()
_NULL = msgspec.Raw(b"null")
_EVENT = b"data: "
_NO_CHOICES = b'"choices":[]'

_ALWAYS = {"include_usage": True, "continuous_usage_stats": True}
_ALWAYS_RAW = msgspec.Raw(_encoder.encode(_ALWAYS))

USAGE = b',"usage":{'
"""In JSON as vLLM writes it. It cannot stand inside a string, where a quote is escaped."""


class Hidden(msgspec.Struct, frozen=True, gc=False):
    """What the log gets and the client does not see. vLLM says null where it was not asked."""

    usage: bool = False
    """The event of a stream that holds nothing but usage."""
    running_usage: bool = False
    """The usage so far, in all events before it."""
    token_ids: bool = False
    logprobs: bool = False
    prompts: int = 1
    choices: int = 1
    """Of the stream, and of how many prompts: each counts its tokens by itself."""

    def of_answer(self, payload: bytes) -> bytes:
        """A whole answer without them."""
        if not (self.token_ids or self.logprobs):
            return payload
        return _encoder.encode(self._without(payload))

    def of_events(self, events: bytes) -> bytes:
        """Whole events of a stream without them, byte for byte as if never asked for."""
        if self.running_usage:
            # From the end, since that is where it stands in an event, and one event is the rule.
            start = events.rfind(USAGE)
            while start >= 0:
                if not events.endswith(_NO_CHOICES, 0, start):
                    events = events[:start] + events[_end_of_object(events, start) :]
                elif self.usage:
                    first = events.rfind(_EVENT, 0, start)
                    events = events[:first] + events[events.find(b"\n\n", start) + 2 :]
                start = events.rfind(USAGE, 0, start)
        if self.token_ids or self.logprobs:
            return b"".join(map(self._of_event, events.split(b"\n\n")[:-1]))
        return events

    def _of_event(self, event: bytes) -> bytes:
        if not event.startswith(_EVENT + b"{"):
            return event + b"\n\n"
        try:
            fields = self._without(event[len(_EVENT) :])
        except msgspec.DecodeError:  # the engine's fault, and the client's to judge
            return event + b"\n\n"
        if fields.get("choices") and all(map(_says_nothing, fields["choices"])):
            return b""
        return _EVENT + _encoder.encode(fields) + b"\n\n"

    def _without(self, payload: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = _fields.decode(payload)
        if self.token_ids and "prompt_token_ids" in fields:
            fields["prompt_token_ids"] = _NULL
        if "choices" in fields:
            fields["choices"] = _choices.decode(fields["choices"])
        for choice in fields.get("choices", ()):
            for name, hide in (("token_ids", self.token_ids), ("logprobs", self.logprobs)):
                if hide and name in choice:
                    choice[name] = _NULL
        return fields


NOTHING = Hidden()


def asks_usage(fields: dict[str, Any]) -> tuple[bool, bool]:
    """Have a stream tell its usage, in each event; whether the client asked for less.

    That is, whether the event of usage alone is to be hidden, and what the others tell.
    """
    sent = fields.get("stream_options")
    if sent is None:
        fields["stream_options"] = _ALWAYS_RAW
        return True, True
    options = msgspec.json.decode(sent) or {}
    fields["stream_options"] = options | _ALWAYS
    usage = bool(options.get("include_usage"))
    return not usage, not (usage and options.get("continuous_usage_stats"))


def _end_of_object(text: bytes, start: int) -> int:
    """Behind the brace that closes the one which is first after ``start``."""
    end = text.find(b"}", start) + 1
    while end and text.count(b"{", start, end) > text.count(b"}", start, end):
        end = text.find(b"}", end) + 1
    return end or len(text)


def _says_nothing(choice: dict[str, msgspec.Raw]) -> bool:
    """Whether vLLM sent it only for its ids: of a token that is no text, as in a call's frame."""
    rest = (bytes(choice.get(name, _NULL)) for name in ("finish_reason", "token_ids", "logprobs"))
    return bytes(choice.get("delta", _NULL)) == b"{}" and all(one == b"null" for one in rest)
