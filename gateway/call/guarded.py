"""A call whose alias is guarded: nobody sees anything before the guards have."""

import asyncio
from collections.abc import Coroutine, Sequence

import msgspec

from gateway.call.call import Call
from gateway.errors import GatewayError, GuardBlocked, InvalidRequest
from gateway.limits import Ticket
from gateway.log.assemble import completion
from gateway.log.record import Verdict
from gateway.routing import Target


class GuardedCall(Call):
    """Asks the guards before the engine is asked, and again before the client is answered.

    An answer is held back meanwhile, a streamed one until it is whole. What guards took out of a
    request or an answer is not in the log either; what they blocked is, with their verdict.
    """

    __slots__ = ("_held", "_whole")

    def start(self, ticket: Ticket) -> None:
        """Ask the guards; then the engine."""
        if self._over:
            ticket.cancel()
            return
        self._ticket = ticket
        self._held: list[bytes] = []
        self._whole = b"null"
        self._then(self._before())

    def give_up(self) -> None:
        """The worker ends, and does not wait for guards."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._over = False
        super().give_up()

    def _ask(self, target: Target) -> None:
        self._held.clear()
        super()._ask(target)

    def _relay(self, out: bytes) -> None:
        self._held.append(out)

    def _streamed(self, out: bytes) -> None:
        self._over = True
        self._held.append(out)
        sse = b"".join(self.exchange.pieces).decode("utf-8", "replace")
        self._then(self._after(msgspec.json.encode(completion(sse))))

    def _answered(self, payload: bytes) -> None:
        self._over = True
        self._whole = payload
        self._then(self._after(payload))

    async def _before(self) -> None:
        exchange = self.exchange
        try:
            checked = await self._worker.guards.check_request(
                exchange.alias, exchange.key.tenant, exchange.body, fits=self._is_same_request
            )
        except GuardBlocked as blocked:
            exchange.body = blocked.body
            raise
        self._said(checked.verdicts)
        if checked.body is not exchange.body:
            exchange.body = checked.body
            exchange.parsed = self.surface.parse(checked.body)
        super().start(self._ticket)

    async def _after(self, answer: bytes) -> None:
        exchange = self.exchange
        try:
            checked = await self._worker.guards.check_answer(
                exchange.alias,
                exchange.key.tenant,
                exchange.body,
                answer,
                fits=self._can_be_told,
            )
        except GuardBlocked as blocked:
            self._keep(answer, blocked.body)
            raise
        self._said(checked.verdicts)
        self._keep(answer, checked.body)
        if not self._streams:
            super()._answered(checked.body)
        elif checked.body is answer:
            super()._streamed(b"".join(self._held))
        else:
            events = b"".join(exchange.pieces)
            super()._streamed(self.surface.events(self._hidden).feed(events))

    def _keep(self, answer: bytes, checked: bytes) -> None:
        """What the log gets of an answer: without what guards took out."""
        if not self._streams:
            self._whole = checked
        elif checked is not answer:
            self.exchange.pieces = [self.surface.stream(checked)]

    def _said(self, verdicts: Sequence[Verdict]) -> None:
        """Reasons may quote the bodies, so they are kept where bodies are."""
        if self.exchange.parsed.store is False:
            verdicts = [msgspec.structs.replace(one, reason=None) for one in verdicts]
        self.exchange.verdicts = [*self.exchange.verdicts, *verdicts]

    def _is_same_request(self, body: bytes) -> None:
        """Whether it can be asked instead: words may change, not what is done with them."""
        old, new = self.exchange.parsed, self.surface.parse(body)
        for name in ("model", "stream", "n", "store", "metadata"):
            if getattr(old, name) != getattr(new, name):
                raise InvalidRequest(f"a guard cannot change {name}")

    def _can_be_told(self, answer: bytes) -> None:
        """Whether its client can be given it instead."""
        if not self._streams:
            return
        try:
            self.surface.stream(answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest("it cannot be told as a stream") from error

    def _then(self, step: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(self._guarded(step))

    async def _guarded(self, step: Coroutine[None, None, None]) -> None:
        try:
            await step
        except GuardBlocked as blocked:
            self._said(blocked.verdicts)
            self._refuse(blocked, response=self._whole)
        except GatewayError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - a border: of one call
            self._over = False
            self.broke(error)
