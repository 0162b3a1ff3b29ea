"""One call: what its client and its engine bring about, in the order that is promised.

Who answers is planned once; the request is forwarded; the answer is recorded; only then the
client gets its last byte.
"""

import logging
from time import perf_counter

from gateway.call.answer import NoAnswer, status_of, usage_of
from gateway.call.answering import Answering
from gateway.errors import GatewayError, TimedOut, Unavailable
from gateway.limits import Ticket
from gateway.routing import Target

logger = logging.getLogger(__name__)

FALLBACK = "fallback"
_EVENT = b"data: "
_REFUSED = _EVENT + b'{"error":'
CLOCKS_S = 0.01
"""How far the clocks may differ that say what was late."""


class Call(Answering):
    """The handler of its client, and the listener to one engine after the other."""

    __slots__ = ()

    def start(self, ticket: Ticket) -> None:
        """Ask the first of the plan's targets, for a client that was let in."""
        if self._over:
            ticket.cancel()
            return
        self._ticket = ticket
        if self._gone:
            ticket.cancel()
            self._ended(self, None)
            return
        try:
            self._ask(self.plan.targets[0])
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self.broke(error)
        self._asked_at = perf_counter()

    def give_up(self) -> None:
        """The worker ends: so does the call."""
        if self._over:
            return
        if self._leg is not None:
            self._leg.cancel()
            self._leg = None
        self._engine_free()
        try:
            self._refuse(Unavailable("The gateway is shutting down. Please retry."))
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self.broke(error)

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
        try:
            self.exchange.received(piece)
            out = self._events.feed(piece)
            if not self._begun and out.startswith(_REFUSED):
                self._refused(out)
            elif self._events.ended:
                self._answered_at = perf_counter()
                self._engine_free()
                if self._leg is not None:
                    self._leg.resume()  # for the connection's sake: what is left is framing
                self._streamed(out)
            elif out:
                self._relay(out)
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self.broke(error)

    def done(self) -> None:
        """It is whole."""
        self._leg = None
        if self._over:
            return
        self._answered_at = perf_counter()
        self._engine_free()
        try:
            if self._streams:
                self._trouble(self._unavailable("ended the stream early"))
            else:
                body = self._body
                self._judge(body[0] if len(body) == 1 else b"".join(body))
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self.broke(error)

    def failed(self, why: str) -> None:  # noqa: ARG002 - it may name what is not the client's
        """There is no answer, or no more of it."""
        self._leg = None
        if self._over:
            return
        self._answered_at = perf_counter()
        limit = self._worker.limit_s(self.exchange.target)
        late = self._answered_at - self._tried_at > limit - CLOCKS_S
        self._engine_free(failed=not (self._heard or late or self._gone))
        try:
            if late:
                name = self.exchange.alias
                self._trouble(TimedOut(f"The engine for `{name}` took longer than {limit:g} s."))
            else:
                self._trouble(self._unavailable("did not answer"))
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self.broke(error)

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

    def _refused(self, out: bytes) -> None:
        """A stream whose first event is an error: vLLM sees some mistakes only after its 200.

        Nothing was given yet, so it is what it would have been without a stream.
        """
        self._answered_at = perf_counter()
        self._engine_free()
        if self._leg is not None:
            self._leg.cancel()
            self._leg = None
        self._streams = False
        self.exchange.pieces, self.exchange.first_chunk = [], None
        payload = out[len(_EVENT) : out.index(b"\n\n")]
        self._status = status_of(payload)
        self._judge(payload)

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
