"""From one exchange to one spool record."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec

from gateway.context import Context
from gateway.errors import RecordFailed, SpoolError
from gateway.keys import Key
from gateway.log.answer import Usage, prompt_hash, read, told
from gateway.log.assemble import completion
from gateway.log.record import Feedback, Invocation, Verdict
from gateway.log.spool import SpoolWriter
from gateway.routing import Target
from gateway.surface import Parsed

logger = logging.getLogger(__name__)

VLLM = "vllm"
_NULL = msgspec.Raw(b"null")
_UNKNOWN = Usage()


class Exchange(msgspec.Struct):
    """One request on its way, and what is known of its answer so far."""

    id: UUID
    request_id: str
    """The same in plain hex, as engines are told it."""
    ts: datetime
    key: Key
    alias: str
    """What it is logged under."""
    operation: str
    """What is done, in the words of OpenTelemetry's GenAI conventions."""
    parsed: Parsed
    body: bytes
    """As the log keeps it."""
    context: Context
    target: Target
    """Who answers; of several tried, the last."""
    arm: str
    propensity: float | None
    started: float
    """``time.perf_counter()``, as is ``first_chunk``."""
    usage: Usage | None = None
    cost: float | None = None
    first_chunk: float | None = None
    pieces: list[bytes] = []
    """The streamed bytes as they came."""
    verdicts: list[Verdict] = []

    @property
    def task(self) -> str:
        """What the client calls this kind of call; the alias when it says nothing."""
        return (self.parsed.metadata or {}).get("task") or self.alias

    def received(self, piece: bytes) -> None:
        """Keep a piece of the stream."""
        if self.first_chunk is None:
            self.first_chunk = time.perf_counter()
        self.pieces.append(piece)


Then = Callable[[Invocation, RecordFailed | None], None]
"""What happens once a record is as durable as promised, or is refused.

It is refused to answers that must not be given without; others go on, and that they have no
record is counted, in the log too.
"""


_Ready = tuple[Invocation, Then, bool]
"""A record, what follows, and whether its answer must not be given without."""


class Recorder:
    """Writes each exchange to the spool, once.

    Without waiting for anything, on purpose: when a client hangs up, an ``await`` in the
    clean-up may never run, a plain write does. What becomes ready while the event loop goes
    round once is written together, unless the caller says that nobody else is there.
    """

    def __init__(self, spool: SpoolWriter, *, best_effort: frozenset[str] = frozenset()) -> None:
        self._spool = spool
        self._best_effort = best_effort
        self._ready: list[_Ready] = []
        self._settling: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Answers given without a record since this worker began."""
        self.error: str | None = None
        """Why the last record could not be written; None when it was."""

    def record(  # noqa: PLR0913 - all that can be said of an answer
        self,
        exchange: Exchange,
        then: Then,
        *,
        status: int,
        response: bytes = b"null",
        error_type: str | None = None,
        cut: bool = False,
        alone: bool = False,
    ) -> None:
        """Have it recorded, ``then`` go on: before this returns when it is ``alone``.

        Of a call whose client ``cut`` it, nobody is left to refuse.
        """
        record = _invocation(exchange, status, response, error_type)
        required = not (cut or self._is_best_effort(exchange))
        if alone and not self._ready:
            self._write([(record, then, required)])
            return
        self._ready.append((record, then, required))
        if len(self._ready) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what is ready."""
        ready, self._ready = self._ready, []
        if ready:
            self._write(ready)

    async def drain(self) -> None:
        """Until nothing is on its way any more."""
        self.flush()
        if self._settling:
            await asyncio.wait(self._settling)

    async def keep(self, feedback: Feedback) -> None:
        """Record it, as durably as promised. Raises RecordFailed."""
        self._append(feedback)
        await self._synced()

    def _write(self, ready: list[_Ready]) -> None:
        try:
            self._append(*[record for record, _, _ in ready])
        except RecordFailed as failed:
            if len(ready) > 1:  # together they may be too large for what room is left
                for one in ready:
                    self._write([one])
            else:
                self._lack(*ready[0], failed)
            return
        if self._spool.waits:
            task = asyncio.create_task(self._settle(ready))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        else:
            for record, then, _ in ready:
                _go_on(record, then, None)

    async def _settle(self, ready: list[_Ready]) -> None:
        failed = None
        try:
            await self._synced()
        except RecordFailed as error:
            failed = error
        for record, then, required in ready:
            # Written it was: none is counted as missing.
            _go_on(record, then, failed if required else None)

    def _lack(self, record: Invocation, then: Then, required: bool, failed: RecordFailed) -> None:  # noqa: FBT001
        if not required:
            self.dropped += 1
            self._spool.drop(reason=self.error or "")
        _go_on(record, then, failed if required else None)

    def _append(self, *records: Invocation | Feedback) -> None:
        try:
            self._spool.append(*records)
        except SpoolError as error:
            raise self._failed(error) from error
        except Exception as error:  # one that cannot be written is not its neighbours' fault
            logger.exception("a record could not be written")
            raise self._failed(error) from error
        self.error = None

    async def _synced(self) -> None:
        try:
            await self._spool.synced()
        except SpoolError as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RecordFailed:
        """What the client is told. The reason names folders, so it is the operator's."""
        if self.error is None:
            logger.error("answers cannot be recorded: %s", error)
        self.error = str(error)
        return RecordFailed(
            "This could not be recorded, and what is not recorded is not given. Please retry; "
            "the operator finds the reason at /health/ready and in the gateway's log."
        )

    def _is_best_effort(self, exchange: Exchange) -> bool:
        names = self._best_effort
        return bool(names) and not names.isdisjoint((exchange.task, exchange.alias))


def _go_on(record: Invocation, then: Then, failed: RecordFailed | None) -> None:
    try:
        then(record, failed)
    except Exception:  # the border: one call's failure is not its neighbours'
        logger.exception("the answer to %s could not be given", record.id)


def _invocation(
    exchange: Exchange, status: int, response: bytes, error_type: str | None
) -> Invocation:
    parsed, target, context = exchange.parsed, exchange.target, exchange.context
    first, usage = exchange.first_chunk, exchange.usage or _UNKNOWN
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    keeps = parsed.store is not False
    sse = b"".join(exchange.pieces).decode("utf-8", "replace") if exchange.pieces else None
    record = Invocation(
        id=exchange.id,
        ts=exchange.ts,
        tenant=exchange.key.tenant,
        key_id=exchange.key.id,
        task=exchange.task,
        operation_name=exchange.operation,
        provider_name=VLLM if target.provider is None else target.provider.name,
        episode_id=context.episode_id,
        parent_id=context.parent_id,
        conversation_id=context.conversation_id,
        trace_id=context.trace_id,
        span_id=context.span_id,
        request_model=parsed.model,
        engine=target.engine_id,
        adapter=target.adapter,
        arm=exchange.arm,
        propensity=exchange.propensity,
        stream=parsed.stream,
        status=status,
        error_type=error_type,
        time_to_first_chunk=None if first is None else first - exchange.started,
        duration=time.perf_counter() - exchange.started,
        subject_id=context.subject_id,
        train_ok=context.train_ok,
        stored=parsed.store is True and status == 200,
        tags=parsed.metadata or None,
        verdicts=exchange.verdicts or None,
        request=msgspec.Raw(exchange.body) if keeps else _NULL,
        response=msgspec.Raw(response) if keeps else _NULL,
        sse=sse if keeps else None,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=prompt.cached_tokens if prompt else None,
        reasoning_output_tokens=completion.reasoning_tokens if completion else None,
        cost=exchange.cost,
    )
    return record if keeps else _with_what_bodies_tell(record, exchange.body, response, sse)


def _with_what_bodies_tell(
    record: Invocation, request: bytes, response: bytes, sse: str | None
) -> Invocation:
    """What the log may know of a call with ``store: false``; the ingester cannot read it later."""
    body = response if sse is None else msgspec.json.encode(completion(sse))
    error_type = record.error_type
    if error_type is None and read(body).failed:
        # vLLM tells of its failure inside the stream.
        error_type = "engine_error"
    # The tokens of several choices that were cut are in no single event: what is known stands.
    known = {
        name: value
        for name, value in told(msgspec.Raw(body)).items()
        if value is not None and getattr(record, name) is None
    }
    known |= {"prompt_hash": prompt_hash(request), "error_type": error_type}
    return msgspec.structs.replace(record, **known)
