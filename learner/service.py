"""The learner at work: ticks, decides what is due, and turns the wheel, one turn at a time."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from gateway.errors import StoreError
from gateway.log.record import new_id
from gateway.log.store import Store
from learner.cycle import Cycle
from learner.dataset.build import count_new
from learner.errors import IllegalMove
from learner.jobs import LeaseStore, Phase, Turn, TurnState, TurnStore
from learner.jobs.lease import Lease
from learner.jobs.work import Work
from learner.policy import Policy
from learner.scheduler import due

logger = logging.getLogger(__name__)

LEASE = "learner"
LEASE_TTL = timedelta(seconds=30)
ATTEMPTS = 5
"""Learners that may work on one turn before it is given up; a restart counts as one."""


class Service:
    """Acts only while it holds the lease, so that of several learners one does."""

    def __init__(  # noqa: PLR0913 - the stores it works with
        self,
        log: Store,
        turns: TurnStore,
        leases: LeaseStore,
        cycle: Cycle,
        policies: Mapping[str, Policy],
        *,
        holder: str,
        now: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._turns = turns
        self._leases = leases
        self._cycle = cycle
        self._policies = policies
        self._holder = holder
        self._now = now
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        """Whether this learner is the one that acts."""
        return self._lease is not None

    async def tick(self) -> None:
        """Renew the lease; when idle, resume what a dead learner left or start what is due."""
        now = self._now()
        self._lease = self._leases.acquire(LEASE, self._holder, ttl=LEASE_TTL, now=now)
        if self._lease is None:
            await self.stop()
            return
        if self._task is not None and not self._task.done():
            return
        try:
            turn = self._left_behind() or await self._due(now)
        except (StoreError, IllegalMove):
            logger.exception("cannot tell what is due; trying again")
            return
        if turn is not None:
            self._task = asyncio.create_task(self._work(turn))

    async def stop(self) -> None:
        """Stop working. A running turn stays running, for the next learner to resume."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._task = None

    def release(self) -> None:
        """Let another learner begin at once."""
        if self._lease is not None:
            self._leases.release(self._lease, now=self._now())

    async def _work(self, turn: Turn) -> None:
        work = Work(turn, self._turns, now=self._now)
        try:
            await self._cycle.run(work, self._policies[turn.alias])
        except IllegalMove:
            logger.warning("turn %s was taken over by another learner", turn.id)
        except Exception as error:  # the border: a turn that breaks must not stop the learner
            logger.exception("turn %s broke", turn.id)
            work.say(f"broke: {error!r}", level="error")
            work.end(TurnState.FAILED, error=repr(error))

    def _left_behind(self) -> Turn | None:
        """A turn whose learner died, taken over; one that killed too many learners is failed."""
        for turn in self._turns.running():
            # A turn with a verdict is only concluded, which is safe to repeat.
            hopeless = turn.attempt >= ATTEMPTS and turn.verdict is None
            if turn.alias not in self._policies or hopeless:
                reason = f"given up after {turn.attempt} attempts, the last in phase {turn.phase}"
                failed = turn.to(TurnState.FAILED, at=self._now(), error=reason)
                self._turns.save(failed, expected=turn)
                continue
            taken = replace(turn, attempt=turn.attempt + 1, changed_at=self._now())
            self._turns.save(taken, expected=turn)
            self._turns.log(taken, f"resumed, attempt {taken.attempt}", at=self._now())
            return taken
        return None

    async def _due(self, now: datetime) -> Turn | None:
        for alias, policy in self._policies.items():
            last = self._turns.last(alias)
            learnt = self._turns.learnt(alias)
            new = await asyncio.to_thread(
                count_new,
                self._log,
                alias,
                policy.section.tenant,
                policy.section.where,
                after=learnt.watermark if learnt else None,
                now=now,
            )
            trigger = due(policy.section.when, last, new, now)
            if trigger is None:
                continue
            turn = Turn(
                id=f"turn-{new_id()}",
                alias=alias,
                state=TurnState.RUNNING,
                phase=Phase.DATASET,
                trigger=trigger,
                started_at=now,
                changed_at=now,
                watermark=now,
            )
            self._turns.add(turn)
            self._turns.log(turn, f"started: {trigger}", at=now)
            return turn
        return None
