"""Takes out of an answer what the gateway asked for, for the log, and the client did not."""

from dataclasses import dataclass
from typing import Any

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_encoder = msgspec.json.Encoder()
_NULL = msgspec.Raw(b"null")
_EVENT = b"data: "
_NO_CHOICES = b'"choices":[]'


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the log gets and the client does not see. vLLM says null where it was not asked."""

    usage: bool = False
    """The event of a stream that holds nothing but usage."""
    token_ids: bool = False
    logprobs: bool = False

    def of_answer(self, payload: bytes) -> bytes:
        """A whole answer without them."""
        if not (self.token_ids or self.logprobs):
            return payload
        return _encoder.encode(self._without(payload))

    def of_events(self, events: bytes) -> bytes:
        """Whole events of a stream without them."""
        if self.usage and _NO_CHOICES in events:
            kept = (event for event in events.split(b"\n\n") if _NO_CHOICES not in event)
            events = b"\n\n".join(kept)
        if not (self.token_ids or self.logprobs):
            return events
        return b"".join(map(self._of_event, events.split(b"\n\n")[:-1]))

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


def _says_nothing(choice: dict[str, msgspec.Raw]) -> bool:
    """Whether vLLM sent it only for its ids: of a token that is no text, as in a call's frame."""
    rest = (bytes(choice.get(name, _NULL)) for name in ("finish_reason", "token_ids", "logprobs"))
    return bytes(choice.get("delta", _NULL)) == b"{}" and all(one == b"null" for one in rest)
