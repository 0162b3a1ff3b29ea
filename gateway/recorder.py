"""From one exchange to one spool record."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec

from gateway.api.request import ChatRequest
from gateway.errors import RecordFailed, SpoolError
from gateway.keys import Key
from gateway.log.record import Invocation
from gateway.log.spool import SpoolWriter
from gateway.routing import Target


@dataclass(slots=True)
class Exchange:
    """One request on its way, and what is known of its answer so far."""

    id: UUID
    ts: datetime
    key: Key
    request: ChatRequest
    body: bytes
    target: Target
    started: float = field(default_factory=time.perf_counter)
    first_chunk: float | None = None
    pieces: list[bytes] = field(default_factory=list)
    """The streamed bytes as they came."""
    status: int | None = None
    """The HTTP status, once the answer has begun; None while it could still become an error."""
    recorded: bool = False

    def received(self, piece: bytes) -> None:
        """Keep a piece of the stream."""
        if self.first_chunk is None:
            self.first_chunk = time.perf_counter()
        self.pieces.append(piece)


class Recorder:
    """Writes each exchange to the spool, once, synchronously.

    Synchronous on purpose: when a client hangs up, an ``await`` in the clean-up may never
    run, a plain write does.
    """

    def __init__(self, spool: SpoolWriter) -> None:
        self._spool = spool

    def record(
        self,
        exchange: Exchange,
        *,
        status: int,
        response: bytes = b"null",
        error_type: str | None = None,
    ) -> None:
        """Raises RecordFailed when the spool refuses; the answer must not be given then."""
        if exchange.recorded:
            return
        exchange.recorded = True
        try:
            self._spool.append(_invocation(exchange, status, response, error_type))
        except SpoolError as error:
            raise RecordFailed(f"The invocation could not be logged: {error}") from error


def _invocation(
    exchange: Exchange, status: int, response: bytes, error_type: str | None
) -> Invocation:
    request, target = exchange.request, exchange.target
    metadata = request.metadata or {}
    first = exchange.first_chunk
    return Invocation(
        id=exchange.id,
        ts=exchange.ts,
        tenant=exchange.key.tenant,
        task=metadata.get("task", target.alias),
        episode_id=exchange.id,
        request_model=request.model,
        engine=target.engine_id,
        adapter=target.adapter,
        arm="incumbent",
        propensity=1.0,
        stream=bool(request.stream),
        status=status,
        error_type=error_type,
        time_to_first_chunk=None if first is None else first - exchange.started,
        duration=time.perf_counter() - exchange.started,
        tags=metadata or None,
        request=msgspec.Raw(exchange.body),
        response=msgspec.Raw(response),
        sse=b"".join(exchange.pieces).decode("utf-8", "replace") if exchange.pieces else None,
    )
