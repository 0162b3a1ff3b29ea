"""The client's side of a call: what it is given, and what is recorded before its last byte."""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from gateway.call import headers
from gateway.call.worker import Worker
from gateway.errors import GatewayError, RecordFailed
from gateway.http.exchange import Front, Headers, Leg
from gateway.limits import FREE, Ticket
from gateway.log.record import Invocation
from gateway.recorder import Exchange
from gateway.routing import Plan
from gateway.surface import Events, Hidden, Surface
from gateway.telemetry import Trace

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""What the record says, as nginx does, when the client left before any answer began."""
CLIENT_GONE = "client_disconnect"

Ended = Callable[["Answering", Invocation | None], None]
"""What becomes of a call that is over; it has no record when no engine was asked."""


class Answering:
    """What is known of a call, and how it ends.

    ``_begun`` once the client has its first byte, ``_gone`` once it hung up, ``_over`` once
    nothing more is awaited of the engine and the record is being written.
    """

    __slots__ = (
        "_answered_at", "_asked_at", "_asking", "_begun", "_body", "_ended", "_error", "_events",
        "_front", "_gone", "_heard", "_hidden", "_last", "_leg", "_over", "_status", "_streams",
        "_task", "_ticket", "_tried_at", "_worker", "allowed", "attempts", "exchange", "plan",
        "surface", "trace",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what was found out before
        self,
        worker: Worker,
        front: Front,
        surface: Surface,
        *,
        exchange: Exchange,
        plan: Plan,
        trace: Trace,
        allowed: Headers,
        ended: Ended,
    ) -> None:
        self.exchange = exchange
        self.plan = plan
        self.surface = surface
        self.trace = trace
        self.allowed = allowed
        """Headers for the page that asked, if it may read the answer."""
        self.attempts = 0
        self._worker = worker
        self._front = front
        self._ticket: Ticket = FREE
        self._ended = ended
        self._leg: Leg | None = None
        self._task: asyncio.Task[None] | None = None
        """What asks the guards, where there are any."""
        self._hidden: Hidden
        self._events: Events
        self._status = 0
        self._asking = self._heard = self._streams = False
        self._begun = self._gone = self._over = False
        self._body: list[bytes] = []
        self._asked_at = self._tried_at = self._answered_at = exchange.started
        self._last = b""
        self._error: GatewayError | None = None

    @property
    def overhead_s(self) -> float:
        """What the gateway took: until the engine was asked, and since it answered."""
        return self._asked_at - self.exchange.started + perf_counter() - self._answered_at

    def broke(self, why: Exception) -> None:
        """Our own fault: the call ends and holds nothing more, the others go on."""
        logger.error("call %s failed", self.exchange.request_id, exc_info=why)
        error = GatewayError("The gateway failed. It has logged why.")
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.cancel()
        self._engine_free()
        if not self._over:
            try:
                self._refuse(error)
            except Exception:
                logger.exception("call %s cannot be recorded", self.exchange.request_id)
            else:
                return
        self._ticket.cancel()
        if self._begun:
            self._front.abort()
        else:
            self._front.answer(
                error.status,
                headers.of_refusal(error, self.surface.id_header),
                self.surface.error(error),
            )
        self._ended(self, None)

    def _engine_free(self, *, failed: bool = False) -> None:
        if self._asking:
            self._asking = False
            self._worker.fleet.end(self.exchange.target.engine_id, failed=failed)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._front.begin(200, self._headers(streams=True))

    def _refuse(self, error: GatewayError, *, response: bytes = b"null") -> None:
        self._error = error
        status = 200 if self._begun else error.status
        self._close(status, b"", response=response, error_type=error.code or error.type)

    def _close(
        self,
        status: int,
        last: bytes,
        *,
        response: bytes = b"null",
        error_type: str | None = None,
    ) -> None:
        """Settle and record; then the client gets its last bytes."""
        self._over = True
        self._status = status
        self._last = last
        if self._gone:
            status = 200 if self._begun else CLIENT_CLOSED_REQUEST
            error_type = CLIENT_GONE
        if self._streams:
            self.exchange.usage = self._events.usage
        self._settle()
        worker = self._worker
        worker.recorder.record(
            self.exchange,
            self._recorded,
            status=status,
            response=response,
            error_type=error_type,
            cut=self._gone,
            alone=worker.capacity.running <= 1,
        )

    def _settle(self) -> None:
        """Replace what was reserved by what the answer took."""
        exchange, usage = self.exchange, self.exchange.usage
        if usage is None:
            self._ticket.cancel()
            return
        read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
        exchange.cost = self._worker.cost(exchange.target, usage)
        self._ticket.settle(read + written, exchange.cost or 0.0)

    def _recorded(self, record: Invocation, refused: RecordFailed | None) -> None:
        self._error = refused or self._error
        try:
            if not self._gone:
                self._finish()
        except BaseException:
            self._front.abort()
            raise
        finally:
            self._ended(self, record)

    def _finish(self) -> None:
        """The last bytes."""
        error = self._error
        if self._begun:
            self._front.end(self._last if error is None else self.surface.error_event(error))
        elif error is not None:
            lines = [*self._headers(), *headers.of_error(error)]
            self._front.answer(error.status, lines, self.surface.error(error))
        elif self._streams:
            self._begin()
            self._front.end(self._last)
        else:
            self._front.answer(self._status, self._headers(), self._last)

    def _headers(self, *, streams: bool = False) -> Headers:
        exchange = self.exchange
        lines = headers.of_answer(
            exchange.target,
            exchange.request_id,
            id_header=self.surface.id_header,
            took_s=perf_counter() - exchange.started,
            overhead_s=self._asked_at - exchange.started if streams else self.overhead_s,
            streams=streams,
        )
        lines += self._ticket.headers
        lines += self.allowed
        return lines
