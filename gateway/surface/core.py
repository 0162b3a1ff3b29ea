"""What the surfaces have in common: a path, its fields, the way to the engine and back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from gateway.errors import GatewayError, InvalidRequest
from gateway.log.answer import Usage
from gateway.settings import Capture
from gateway.surface.body import Parsed, admitted, read
from gateway.surface.envelope import encoded, refused
from gateway.surface.events import ChunkEvents, Events
from gateway.surface.fields import Fields
from gateway.surface.hidden import NOTHING, Hidden
from gateway.surface.restream import chunks


class _Whole(msgspec.Struct):
    usage: Usage | None = None


_encoder = msgspec.json.Encoder()
_whole = msgspec.json.Decoder(_Whole)


class Surface(ABC):
    """One endpoint that engines answer. Has no state; one instance serves everybody."""

    path: ClassVar[str]
    operation: ClassVar[str]
    """What is done, in the words of OpenTelemetry's GenAI conventions."""
    fields: ClassVar[Fields]
    id_header: ClassVar[bytes | None] = None
    """Where its clients look for the request's id, beside ``x-request-id``."""

    def parse(self, body: bytes) -> Parsed:
        """Raises InvalidRequest for what the gateway does not take, all refused fields named."""
        fields, values = read(body)
        admitted_fields = admitted(fields, values, self.fields)
        try:
            return self._parsed(values, admitted_fields)
        except RecursionError as error:
            raise InvalidRequest("The body is nested too deeply.") from error

    @abstractmethod
    def _parsed(self, values: Mapping[str, Any], fields: dict[str, Raw]) -> Parsed: ...

    def rewritten(
        self,
        parsed: Parsed,
        *,
        model: str,
        capture: Capture,  # noqa: ARG002 - what chat completions alone can tell
    ) -> tuple[bytes, Hidden]:
        """The body for the engine, and what the gateway asks in it that the client did not."""
        return _encoder.encode(parsed.fields | {"model": model}), NOTHING

    def usage(self, payload: bytes) -> Usage | None:
        """What a whole answer says it took; None where it does not say."""
        try:
            return _whole.decode(payload).usage
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def events(self, hidden: Hidden) -> Events:
        """For one stream of this surface."""
        return ChunkEvents(hidden)

    def stream(self, payload: bytes) -> bytes:
        """A whole answer as events, with its usage; ``events`` hides what is to be hidden."""
        return self._streamed(msgspec.json.decode(payload, type=dict[str, Any]))

    def _streamed(self, answer: dict[str, Any]) -> bytes:
        return chunks(answer)

    def error(self, error: GatewayError) -> bytes:
        """The body of an error's answer."""
        return encoded(error)

    def error_event(self, error: GatewayError) -> bytes:
        """What ends a stream that broke."""
        return b"data: " + encoded(error) + b"\n\n"

    def refusal(self, payload: bytes) -> bytes:
        """The engine's own 4xx as the gateway's."""
        return self.error(refused(payload, self.path))
