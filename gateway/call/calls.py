"""Takes requests in: who asks, for what, whether there is room; then a Call has it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final
from uuid import UUID

from gateway.call import headers
from gateway.call.answering import Answering
from gateway.call.call import Call
from gateway.call.guarded import GuardedCall
from gateway.call.shadow import Mirrors
from gateway.call.worker import Worker
from gateway.context import Context, context
from gateway.errors import GatewayError
from gateway.http.exchange import Front, Handler, Headers, Request
from gateway.keys import Key, Scope
from gateway.limits import Ticket
from gateway.log.answer import Usage
from gateway.log.record import Invocation, new_id
from gateway.model import ModelOptions
from gateway.recorder import Exchange
from gateway.routing import plan
from gateway.surface import SURFACES, Surface

OK = 200
METERED_S = 2.5
"""How long calls that were cut are still metered when the worker ends."""
BYTES_PER_TOKEN = 4
"""Of a request, about."""
MOST_TOKENS = 1 << 30
"""That any one answer may have."""
ANSWER_TOKENS = 256
"""What is reserved for an answer whose client sets no limit."""


class _Answered:
    """The handler of a request that was answered at once."""

    def hung_up(self) -> None:
        """Nothing is under way."""

    def drained(self) -> None:
        """Nothing follows."""


_ANSWERED: Final = _Answered()


class Calls:
    """All calls of one worker. ``accept`` is what both fronts call."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._mirrors = Mirrors(worker)
        self._running: set[Call] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Event | None = None
        """Set when the last call is over, once the worker ends."""

    def accept(self, request: Request, front: Front) -> Handler:
        """Answer one request, errors included. What is cheap is checked before what is not."""
        worker, surface = self._worker, SURFACES[request.path]
        try:
            key = self._key(request)
            worker.capacity.enter(key.tenant)
        except GatewayError as error:
            self._turn_away(error, surface, front, self._allowed(request))
            return _ANSWERED
        try:
            return self._begun(request, front, surface, key)
        except GatewayError as error:
            worker.capacity.leave(key.tenant)
            self._turn_away(error, surface, front, self._allowed(request))
            return _ANSWERED
        except BaseException:
            worker.capacity.leave(key.tenant)
            raise

    def turns_away(self, request: Request, front: Front) -> bool:
        """Whether a request is refused for its head alone, whatever its body may be."""
        try:
            self._key(request)
        except GatewayError as error:
            surface = SURFACES[request.path]
            self._turn_away(error, surface, front, self._allowed(request))
            return True
        return False

    async def close(self) -> None:
        """Meter what was cut a moment longer, then end every call, recorded."""
        if self._running:
            self._closing = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(METERED_S):
                    await self._closing.wait()
        for call in list(self._running):
            call.give_up()
        self._mirrors.close()
        await self._worker.recorder.drain()

    def _key(self, request: Request) -> Key:
        key = self._worker.state.key(request.headers)
        key.require(Scope.INFERENCE)
        return key

    def _begun(self, request: Request, front: Front, surface: Surface, key: Key) -> Call:
        call = self._call(request, front, surface, key)
        limiter = self._worker.limiter
        tokens, cost = self._estimate(call.exchange)
        if limiter.remote:
            self._running.add(call)
            task = asyncio.create_task(
                self._admit(call, limiter.admit(key, tokens=tokens, cost=cost), front)
            )
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        else:
            ticket = limiter.admit(key, tokens=tokens, cost=cost)
            self._running.add(call)
            call.start(ticket)
        return call

    def _call(self, request: Request, front: Front, surface: Surface, key: Key) -> Call:
        """The call that a request is, planned. Raises GatewayError for one that can be none."""
        worker = self._worker
        parsed = surface.parse(request.body)
        key.may_use(parsed.model)
        invocation_id = new_id()
        belongs = context(
            request.headers,
            parsed,
            invocation_id=invocation_id,
            key=key,
            subjects=worker.subjects,
        )
        planned = plan(
            worker.state.snapshot,
            parsed.model,
            models=worker.models,
            sticky=_sticky(worker.models.get(parsed.model), belongs, invocation_id),
            fleet=worker.fleet,
        )
        exchange = Exchange(
            id=invocation_id,
            request_id=invocation_id.hex,
            ts=worker.now(),
            key=key,
            alias=planned.alias,
            operation=surface.operation,
            parsed=parsed,
            body=request.body,
            context=belongs,
            target=planned.targets[0],
            arm=planned.arm,
            propensity=planned.propensity,
            started=request.arrived,
        )
        kind = GuardedCall if worker.guards.watches(planned.alias) else Call
        trace = worker.telemetry.trace(request.headers, invocation_id)
        return kind(
            worker,
            front,
            surface,
            exchange=exchange,
            plan=planned,
            trace=trace,
            allowed=self._allowed(request),
            ended=self._ended,
        )

    def _estimate(self, exchange: Exchange) -> tuple[int, float]:
        """The tokens and the cost to reserve; what the answer took replaces them."""
        parsed = exchange.parsed
        read = len(exchange.body) // BYTES_PER_TOKEN
        # What is nonsense the engine refuses; until then it must not count as less than nothing.
        most = min(max(parsed.max_tokens or ANSWER_TOKENS, 0), MOST_TOKENS)
        written = most * parsed.n
        cost = 0.0
        if exchange.key.budgets:
            usage = Usage(prompt_tokens=read, completion_tokens=written)
            cost = self._worker.cost(exchange.target, usage) or 0.0
        return read + written, cost

    async def _admit(self, call: Call, admitted: Awaitable[Ticket], front: Front) -> None:
        """Start a call that its limiter lets in, when it has made up its mind."""
        try:
            call.start(await admitted)
        except GatewayError as error:
            self._turn_away(error, call.surface, front, call.allowed)
            self._ended(call, None)
        except Exception as error:  # noqa: BLE001 - a border: of one call
            call.broke(error)

    def _ended(self, call: Answering, record: Invocation | None) -> None:
        worker, exchange = self._worker, call.exchange
        if call not in self._running:
            return
        self._running.discard(call)
        if self._closing is not None and not self._running:
            self._closing.set()
        worker.capacity.leave(exchange.key.tenant)
        if record is None:
            return
        worker.telemetry.finished(
            record,
            alias=exchange.alias,
            overhead_s=call.overhead_s,
            attempts=call.attempts,
            trace=call.trace,
        )
        if call.plan.shadow is not None and record.status == OK:
            self._mirrors.show(call, call.plan.shadow)

    def _allowed(self, request: Request) -> Headers:
        """Whether the page that sent a request may read the answer to it."""
        return self._worker.cors.headers(request.headers.get(b"origin"))

    def _turn_away(
        self, error: GatewayError, surface: Surface, front: Front, allowed: Headers
    ) -> None:
        self._worker.telemetry.refused(error.status, error.code)
        lines = [*headers.of_refusal(error, surface.id_header), *allowed]
        front.answer(error.status, lines, surface.error(error))


def _sticky(options: ModelOptions | None, belongs: Context, own: UUID) -> bytes | None:
    """What keeps a call with others; None for one that stands alone."""
    kind = "episode" if options is None else options.sticky
    if kind == "episode":
        return None if belongs.episode_id is own else belongs.episode_id.bytes
    if kind == "conversation" and belongs.conversation_id:
        return belongs.conversation_id.encode()
    if kind == "user" and belongs.subject_id:
        return belongs.subject_id.encode()
    return None
