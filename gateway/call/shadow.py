"""Calls that are also sent elsewhere: answers for the log, which nobody waits for."""

import logging
from collections.abc import Callable
from time import perf_counter

import msgspec

from gateway.call.answer import NoAnswer, usage_of
from gateway.call.answering import Answering
from gateway.call.worker import Worker
from gateway.errors import GatewayError, RecordFailed, Unavailable
from gateway.http.exchange import Leg
from gateway.log.record import Invocation, new_id
from gateway.recorder import Exchange
from gateway.routing import Target
from gateway.surface import Parsed

logger = logging.getLogger(__name__)

OK = 200
ERROR = "engine_error"
SHADOW = "shadow"
MOST = 64
"""Mirrors under way at once; calls beyond go without."""
_STREAMING = ("stream", "stream_options")


class Mirrors:
    """All mirrors of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._running: set[_Mirror] = set()

    def show(self, call: Answering, target: Target) -> None:
        """Mirror an answered call, unless the worker has enough to do."""
        capacity = self._worker.capacity
        if len(self._running) < MOST and capacity.running * 2 <= capacity.limit:
            mirror = _Mirror(self._worker, call, target, self._running.discard)
            self._running.add(mirror)
            mirror.start()

    def close(self) -> None:
        """Give up what is under way. It has no record: nobody was answered."""
        for mirror in list(self._running):
            mirror.cancel()


class _Mirror:
    """The listener to the engine that answers one mirrored call."""

    def __init__(
        self, worker: Worker, call: Answering, target: Target, ended: Callable[["_Mirror"], None]
    ) -> None:
        primary = call.exchange
        self._worker = worker
        self._surface = call.surface
        self._ended = ended
        invocation_id = new_id()
        self._exchange = Exchange(
            id=invocation_id,
            request_id=invocation_id.hex,
            ts=worker.now(),
            key=primary.key,
            alias=primary.alias,
            operation=primary.operation,
            parsed=_whole(primary.parsed),
            body=primary.body,
            context=msgspec.structs.replace(primary.context, parent_id=primary.id),
            target=target,
            arm=SHADOW,
            propensity=None,
            started=perf_counter(),
        )
        self._status = 0
        self._body: list[bytes] = []
        self._leg: Leg

    def start(self) -> None:
        """Ask the engine."""
        self._worker.fleet.begin(self._exchange.target.engine_id)
        try:
            self._leg, _ = self._worker.post(self._surface, self._exchange, [], self)
        except (GatewayError, ValueError):
            logger.exception("%s cannot be asked for a mirror", self._exchange.target.engine_id)
            self._release(failed=False)

    def cancel(self) -> None:
        """Stop asking."""
        self._leg.cancel()
        self._release(failed=False)

    def head(self, status: int, content_type: bytes) -> None:  # noqa: ARG002 - its body tells more
        """Its answer has begun."""
        self._status = status

    def data(self, piece: bytes) -> None:
        """A piece of it."""
        self._body.append(piece)

    def done(self) -> None:
        """It is whole."""
        self._release(failed=False)
        payload = b"".join(self._body)
        try:
            self._exchange.usage = usage_of(payload, self._surface)
        except NoAnswer:
            self._record(Unavailable.status, b"null", Unavailable.code)
        else:
            self._record(self._status, payload, None if self._status == OK else ERROR)

    def failed(self, why: str) -> None:  # noqa: ARG002 - the record has a code for it
        """There is none."""
        self._release(failed=not self._status)
        self._record(Unavailable.status, b"null", Unavailable.code)

    def _release(self, *, failed: bool) -> None:
        self._worker.fleet.end(self._exchange.target.engine_id, failed=failed)
        self._ended(self)

    def _record(self, status: int, response: bytes, error_type: str | None) -> None:
        exchange = self._exchange
        if exchange.usage is not None:
            exchange.cost = self._worker.cost(exchange.target, exchange.usage)
        self._worker.recorder.record(
            exchange,
            self._recorded,
            status=status,
            response=response,
            error_type=error_type,
            cut=True,
        )

    def _recorded(self, record: Invocation, _: RecordFailed | None) -> None:
        self._worker.telemetry.finished(
            record, alias=self._exchange.alias, overhead_s=0.0, attempts=1
        )


def _whole(parsed: Parsed) -> Parsed:
    """The same request for an answer in one piece."""
    if not parsed.stream:
        return parsed
    fields = {name: raw for name, raw in parsed.fields.items() if name not in _STREAMING}
    return msgspec.structs.replace(parsed, stream=False, fields=fields)
