"""From one exchange to one spool record."""

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.api.context import Context
from gateway.api.request import ChatRequest
from gateway.errors import RecordFailed, SpoolError
from gateway.keys import Key
from gateway.log.answer import prompt_hash, read, told
from gateway.log.assemble import completion
from gateway.log.record import Feedback, Invocation
from gateway.log.spool import SpoolWriter
from gateway.routing import Target

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Exchange:
    """One request on its way, and what is known of its answer so far."""

    id: UUID
    ts: datetime
    key: Key
    request: ChatRequest
    body: bytes
    target: Target
    context: Context
    started: float = field(default_factory=time.perf_counter)
    first_chunk: float | None = None
    pieces: list[bytes] = field(default_factory=list)
    """The streamed bytes as they came."""
    status: int | None = None
    """The HTTP status, once the answer has begun; None while it could still become an error."""
    recorded: bool = False

    @property
    def task(self) -> str:
        """What the client calls this kind of call; the alias when it says nothing."""
        return (self.request.metadata or {}).get("task") or self.target.alias

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

    def __init__(self, spool: SpoolWriter, *, best_effort: frozenset[str] = frozenset()) -> None:
        self._spool = spool
        self._best_effort = best_effort
        self.dropped = 0
        """Answers given without a record since this worker began."""
        self.error: str | None = None
        """Why the last record could not be written; None when it was."""

    def record(
        self,
        exchange: Exchange,
        *,
        status: int,
        response: bytes = b"null",
        error_type: str | None = None,
    ) -> None:
        """Raises RecordFailed when the spool refuses; the answer must not be given then.

        A best-effort task's answer may be: that it has no record is counted, in the log too.
        """
        if exchange.recorded:
            return
        exchange.recorded = True
        try:
            self._append(_invocation(exchange, status, response, error_type))
        except RecordFailed:
            if not self._is_best_effort(exchange):
                raise
            self._drop()

    def record_cut(self, exchange: Exchange, *, status: int) -> None:
        """Of a client that hung up. Nobody is left to refuse, so a lost record is counted."""
        try:
            self.record(exchange, status=status, error_type="client_disconnect")
        except RecordFailed:
            self._drop()

    async def durable(self, exchange: Exchange) -> None:
        """Until the record is as durable as promised, before the last byte. Raises RecordFailed."""
        try:
            await self._synced()
        except RecordFailed:
            if not self._is_best_effort(exchange):
                raise

    async def keep(self, feedback: Feedback) -> None:
        """Record it, as durably as promised. Raises RecordFailed."""
        self._append(feedback)
        await self._synced()

    def _append(self, record: Invocation | Feedback) -> None:
        try:
            self._spool.append(record)
        except SpoolError as error:
            raise self._failed(error) from error
        self.error = None

    async def _synced(self) -> None:
        try:
            await self._spool.synced()
        except SpoolError as error:
            raise self._failed(error) from error

    def _failed(self, error: SpoolError) -> RecordFailed:
        """What the client is told. The reason names folders, so it is the operator's."""
        if self.error is None:
            logger.error("answers cannot be recorded: %s", error)
        self.error = str(error)
        return RecordFailed(
            "This could not be recorded, and what is not recorded is not given. Please retry; "
            "the operator finds the reason at /health/ready and in the gateway's log."
        )

    def _is_best_effort(self, exchange: Exchange) -> bool:
        return not self._best_effort.isdisjoint((exchange.task, exchange.target.alias))

    def _drop(self) -> None:
        self.dropped += 1
        self._spool.drop(reason=self.error or "")


def _invocation(
    exchange: Exchange, status: int, response: bytes, error_type: str | None
) -> Invocation:
    request, target, context = exchange.request, exchange.target, exchange.context
    first = exchange.first_chunk
    sse = b"".join(exchange.pieces).decode("utf-8", "replace") if exchange.pieces else None
    if request.store is False:
        answer = _without_bodies(exchange.body, response, sse, error_type)
    else:
        bodies = {"request": msgspec.Raw(exchange.body), "response": msgspec.Raw(response)}
        answer = {**bodies, "sse": sse, "error_type": error_type}
    return Invocation(
        id=exchange.id,
        ts=exchange.ts,
        tenant=exchange.key.tenant,
        task=exchange.task,
        episode_id=context.episode_id,
        parent_id=context.parent_id,
        conversation_id=context.conversation_id,
        trace_id=context.trace_id,
        span_id=context.span_id,
        request_model=request.model,
        engine=target.engine_id,
        adapter=target.adapter,
        arm="incumbent",
        propensity=1.0,
        stream=bool(request.stream),
        status=status,
        time_to_first_chunk=None if first is None else first - exchange.started,
        duration=time.perf_counter() - exchange.started,
        subject_id=context.subject_id,
        train_ok=context.train_ok,
        stored=request.store is True and status == 200,
        tags=request.metadata or None,
        **answer,
    )


def _without_bodies(
    request: bytes, response: bytes, sse: str | None, error_type: str | None
) -> dict[str, Any]:
    """What the log may know of a call with ``store: false``; the ingester cannot read it later."""
    body = response if sse is None else msgspec.json.encode(completion(sse))
    if error_type is None and read(body).failed:
        # vLLM tells of its failure inside the stream.
        error_type = "engine_error"
    return {
        **told(msgspec.Raw(body)),
        "prompt_hash": prompt_hash(request),
        "error_type": error_type,
    }
