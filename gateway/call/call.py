"""One call: what its client and its engine bring about, in the order that is promised.

Who answers is planned once; the request is forwarded; the answer is recorded; only then the
client gets its last byte.
"""

import logging
from collections.abc import Callable
from time import perf_counter

from gateway.call import headers
from gateway.call.answer import NoAnswer, usage_of
from gateway.call.worker import Worker
from gateway.errors import GatewayError, RecordFailed, TimedOut, Unavailable
from gateway.http.exchange import Front, Headers, Leg
from gateway.limits import Ticket
from gateway.log.record import Invocation
from gateway.recorder import Exchange
from gateway.routing import Plan, Target
from gateway.surface import Surface
from gateway.telemetry import Trace

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""What the record says, as nginx does, when the client left before any answer began."""
CLIENT_GONE = "client_disconnect"
FALLBACK = "fallback"
CLOCKS_S = 0.01
"""How far the clocks may differ that say what was late."""

Ended = Callable[["Call", Invocation | None], None]
"""What becomes of a call that is over; it has no record when no engine was asked."""


class Call:
    """The handler of its client, and the listener to one engine after the other.

    ``_begun`` once the client has its first byte, ``_gone`` once it hung up, ``_over`` once
    nothing more is awaited of the engine and the record is being written.
    """

    __slots__ = (
        "_answered_at", "_asked_at", "_asking", "_begun", "_body", "_ended", "_error", "_events",
        "_front", "_gone", "_heard", "_hidden", "_last", "_leg", "_over", "_status", "_streams",
        "_ticket", "_tried_at", "_worker", "allowed", "attempts", "exchange", "plan", "surface",
        "trace",
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
        self._ticket: Ticket
        self._ended = ended
        self._leg: Leg | None = None
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

    def start(self, ticket: Ticket) -> None:
        """Ask the first of the plan's targets, for a client that was let in."""
        self._ticket = ticket
        if self._gone:
            ticket.cancel()
            self._ended(self, None)
            return
        self._ask(self.plan.targets[0])
        self._asked_at = perf_counter()

    def give_up(self) -> None:
        """The worker ends: so does the call."""
        if self._over:
            return
        if self._leg is not None:
            self._leg.cancel()
            self._leg = None
        self._engine_free()
        self._refuse(Unavailable("The gateway is shutting down. Please retry."))

    # What the client brings about.

    def hung_up(self) -> None:
        """The client is gone: the engine is told, and what it still sends is metered."""
        self._gone = True
        if self._leg is not None:
            self._leg.resume()
            self._leg.hang_up()

    def drained(self) -> None:
        """The client has caught up."""
        if self._leg is not None:
            self._leg.resume()

    # What the engine brings about.

    def head(self, status: int, content_type: bytes) -> None:  # noqa: ARG002 - its body tells more
        """Its answer has begun."""
        self._heard = True
        self._status = status
        self._streams = status == 200 and self.exchange.parsed.stream

    def data(self, piece: bytes) -> None:
        """A piece of it. Of a stream, whole events go on at once, all but the last."""
        if not self._streams:
            self._body.append(piece)
            return
        if self._over:
            return
        self.exchange.received(piece)
        out = self._events.feed(piece)
        if self._events.ended:
            self._answered_at = perf_counter()
            self._engine_free()
            if self._leg is not None:
                self._leg.resume()  # for the connection's sake: what is left is framing
            self._streamed(out)
        elif out:
            self._relay(out)

    def done(self) -> None:
        """It is whole."""
        self._leg = None
        if self._over:
            return
        self._answered_at = perf_counter()
        self._engine_free()
        if self._streams:
            self._trouble(self._unavailable("ended the stream early"))
        else:
            body = self._body
            self._judge(body[0] if len(body) == 1 else b"".join(body))

    def failed(self, why: str) -> None:  # noqa: ARG002 - it may name what is not the client's
        """There is no answer, or no more of it."""
        self._leg = None
        if self._over:
            return
        self._answered_at = perf_counter()
        limit = self._worker.limit_s(self.exchange.target)
        late = self._answered_at - self._tried_at > limit - CLOCKS_S
        self._engine_free(failed=not (self._heard or late or self._gone))
        if late:
            name = self.exchange.alias
            self._trouble(TimedOut(f"The engine for `{name}` took longer than {limit:g} s."))
        else:
            self._trouble(self._unavailable("did not answer"))

    # What is done about it.

    def _ask(self, target: Target) -> None:
        worker, exchange = self._worker, self.exchange
        exchange.target = target
        if target.fallback:
            exchange.arm, exchange.propensity = FALLBACK, None
        self.attempts += 1
        self._heard = self._streams = False
        self._body.clear()
        self._asking = True
        worker.fleet.begin(target.engine_id)
        self._tried_at = perf_counter()
        try:
            self._leg, self._hidden = worker.post(self.surface, exchange, self.trace.headers, self)
        except GatewayError as error:
            self._engine_free()
            self._refuse(error)
            return
        except ValueError:
            logger.exception("%s cannot be asked at %s", target.engine_id, target.url)
            self._engine_free(failed=True)
            self._trouble(self._unavailable("cannot be asked"))
            return
        if exchange.parsed.stream:
            self._events = self.surface.events(self._hidden)

    def _engine_free(self, *, failed: bool = False) -> None:
        if self._asking:
            self._asking = False
            self._worker.fleet.end(self.exchange.target.engine_id, failed=failed)

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"The engine for `{self.exchange.alias}` {what}. Please retry.")

    def _relay(self, out: bytes) -> None:
        """Give the client whole events."""
        if self._gone:
            return
        self._begin()
        self._front.write(out)
        if self._front.clogged and self._leg is not None:
            self._leg.pause()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._front.begin(200, self._headers(streams=True))

    def _streamed(self, out: bytes) -> None:
        """The stream is whole; ``out`` are its last events."""
        self._close(200, out)

    def _judge(self, payload: bytes) -> None:
        """Whether a whole answer is one."""
        status = self._status
        if status == 200:
            try:
                self.exchange.usage = usage_of(payload, self.surface)
            except NoAnswer:  # something stands between us and the engine
                self._trouble(self._unavailable("gave no JSON"))
            else:
                self._answered(payload)
        elif 400 <= status < 500 and not (status == 404 and self.exchange.target.adapter):
            refusal = self.surface.refusal(payload)
            self._close(status, refusal, response=refusal, error_type="invalid_request")
        else:
            # A restarted engine that lacks the adapter says 404. To the client it is a 503.
            self._trouble(self._unavailable("failed"))

    def _answered(self, payload: bytes) -> None:
        self._close(200, self._hidden.of_answer(payload), response=payload)

    def _trouble(self, error: GatewayError) -> None:
        """Ask the next target if nothing was given yet; else this is the end."""
        targets = self.plan.targets
        if (
            not (self._begun or self._gone)
            and self.attempts < len(targets)
            and self._worker.fleet.may_retry()
        ):
            self.exchange.pieces = []
            self.exchange.first_chunk = None
            self._ask(targets[self.attempts])
        else:
            self._refuse(error)

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
        if not self._gone:
            self._finish()
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
            took_s=perf_counter() - exchange.started,
            overhead_s=self._asked_at - exchange.started if streams else self.overhead_s,
            streams=streams,
        )
        lines += self._ticket.headers
        lines += self.allowed
        return lines
