"""A call whose alias is guarded: nobody sees anything before the guards have."""

import asyncio
import logging
from collections.abc import Coroutine

import msgspec

from gateway.call.call import Call
from gateway.errors import GatewayError, GuardBlocked
from gateway.limits import Ticket
from gateway.log.assemble import completion

logger = logging.getLogger(__name__)


class GuardedCall(Call):
    """Asks the guards before the engine is asked, and again before the client is answered.

    An answer is held back meanwhile, a streamed one until it is whole. What guards took out of a
    request or an answer is not in the log either; what they blocked is, with their verdict.
    """

    __slots__ = ("_held", "_task", "_whole")

    def start(self, ticket: Ticket) -> None:
        """Ask the guards; then the engine."""
        self._ticket = ticket
        self._held: list[bytes] = []
        self._whole = b"null"
        self._then(self._before())

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
        checked = await self._worker.guards.check_request(
            exchange.alias, exchange.key.tenant, exchange.body
        )
        exchange.verdicts += checked.verdicts
        if checked.body != exchange.body:
            exchange.body = checked.body
            exchange.parsed = self.surface.parse(checked.body)
        super().start(self._ticket)

    async def _after(self, answer: bytes) -> None:
        exchange = self.exchange
        checked = await self._worker.guards.check_answer(
            exchange.alias, exchange.key.tenant, exchange.body, answer
        )
        exchange.verdicts += checked.verdicts
        if not self._streams:
            super()._answered(checked.body)
        elif checked.body == answer:
            super()._streamed(b"".join(self._held))
        else:
            events = self.surface.stream(checked.body)
            exchange.pieces = [events]
            super()._streamed(self.surface.events(self._hidden).feed(events))

    def _then(self, step: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(self._guarded(step))

    async def _guarded(self, step: Coroutine[None, None, None]) -> None:
        try:
            await step
        except GuardBlocked as blocked:
            self.exchange.verdicts += blocked.verdicts
            self._refuse(blocked, response=self._whole)
        except GatewayError as error:
            self._refuse(error)
        except Exception:  # the border: one call's failure is not the others'
            logger.exception("a guarded call failed")
            self._refuse(GatewayError("The gateway failed. It has logged why."))
