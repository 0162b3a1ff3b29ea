"""The agent of one engine: vLLM runs, holds what the registry wishes, and says so."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from serving.engine import Engine
from serving.errors import EngineError
from serving.launch import Machine, model_config
from serving.probe import prompt_of
from serving.reconciler import Residence, Terms, reconcile
from serving.registry import EngineReport, EngineState, Registry
from serving.settings import AgentSettings
from serving.supervisor import ChildEvent, ChildEventKind, Supervisor, last_lines
from serving.vllm import prepare, vllm_command
from serving.workbench import Workbench

__all__ = ["Agent", "Workbench"]

log = logging.getLogger(__name__)

_SMALLEST_VOCABULARY = 256
_SEEN_WITHIN_S = 0.5
"""Gateways notice a draining engine within this time, and send nothing new."""
_HEALTH_TIMEOUT_S = 10.0
_HANG_GRACE_S = 1.0
_STOP_GRACE_S = 10.0
"""An engine that answers nothing any more ends within a second."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the agent knows of its engine at one moment."""

    state: EngineState = EngineState.STARTING
    residence: Residence = field(default_factory=Residence)
    run: int = 0
    """Counts vLLM's starts: what was learnt of an earlier run no longer holds."""


class Agent:
    """Starts one vLLM and keeps its adapters equal to the registry's wish, until told to stop.

    An engine is reported ready only when every wanted adapter is loaded and probed, after
    the first start and after every restart, so that a request for an adapter is never
    answered by the base.
    """

    def __init__(
        self,
        settings: AgentSettings,
        registry: Registry,
        machine: Machine,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._spec = settings.engine.spec()
        self._clock = clock
        self._machine = machine
        self._command = vllm_command(self._spec, machine, settings.run_dir)
        self._condition = Condition()
        self._changed = asyncio.Event()
        self._complained_of: int | None = None
        self._ready_run: int | None = None
        self._terms = Terms(
            base=self._spec.served_name,
            prompt=prompt_of(_vocabulary(self._spec.base)),
            capacity=max(self._spec.max_cpu_loras, self._spec.max_loras),
        )

    @property
    def condition(self) -> Condition:
        """The engine as of now."""
        return self._condition

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then let running answers finish and end vLLM.

        LaunchError before anything is started when vLLM could not run as configured.
        """
        await self._report()  # whatever a predecessor said of this engine no longer holds
        ended = asyncio.Event()
        beat = asyncio.create_task(self._beat(ended), name="heartbeat")
        try:
            await asyncio.to_thread(prepare, self._spec, self._machine, self._command)
            async with (
                Engine(self._spec.url, timeout_s=self._settings.hang_s) as engine,
                Supervisor(self._command, grace_s=_STOP_GRACE_S, notify=self._notice) as supervisor,
            ):
                await self._serve(engine, supervisor, beat, stop)
        finally:
            self._become(EngineState.DOWN, residence=Residence())
            ended.set()
            self._changed.set()
            await beat
            await self._report()  # the last word, whatever the heartbeat was just saying

    async def _serve(
        self,
        engine: Engine,
        supervisor: Supervisor,
        beat: asyncio.Task[None],
        stop: asyncio.Event,
    ) -> None:
        keep = asyncio.create_task(self._keep(engine, supervisor), name="keep adapters")
        stopped = asyncio.create_task(stop.wait(), name="wait for stop")
        try:
            done, _ = await asyncio.wait({beat, keep, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # these two end only by a failure
        finally:
            keep.cancel()
            stopped.cancel()
            await asyncio.wait({keep, stopped})
        self._become(EngineState.DRAINING)
        await self._drain(engine)

    async def _drain(self, engine: Engine) -> None:
        """Wait until nothing is being answered. vLLM's own drain takes seconds when idle."""
        await asyncio.sleep(_SEEN_WITHIN_S)
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(self._settings.grace_s):
                while True:
                    if not await engine.unfinished():
                        return
                    await asyncio.sleep(self._settings.poll_s)

    def _notice(self, event: ChildEvent) -> None:
        if event.kind is ChildEventKind.STARTED:
            log.info("%s started as process %d", event.name, event.pid)
            run = self._condition.run + 1
            self._set(Condition(EngineState.STARTING, Residence(), run))
        elif event.kind is ChildEventKind.EXITED:
            log.error(
                "%s ended with code %s; next start in %.1f s. The end of its log:\n%s",
                event.name,
                event.code,
                event.delay_s or 0.0,
                last_lines(self._command.log, 8),
            )
            self._become(EngineState.DOWN, residence=Residence())

    def _become(self, state: EngineState, *, residence: Residence | None = None) -> None:
        if residence is None:
            residence = self._condition.residence
        self._set(replace(self._condition, state=state, residence=residence))

    def _set(self, condition: Condition) -> None:
        if condition != self._condition:
            if condition.state is not self._condition.state:
                log.info("engine %s is %s", self._spec.name, condition.state)
            self._condition = condition
            self._changed.set()

    async def _beat(self, ended: asyncio.Event) -> None:
        """Report every change at once, and that we live every few seconds.

        Not cancelled but told to end: a report on its way must not arrive after the last.
        """
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat_s):
                    await self._changed.wait()
            self._changed.clear()
            if not ended.is_set():
                await self._report()

    async def _report(self) -> None:
        report = EngineReport(
            engine_id=self._spec.name,
            url=self._spec.url,
            base=self._spec.served_name,
            state=self._condition.state,
            resident=self._condition.residence.proven,
            failed=self._condition.residence.failed,
            at=self._clock(),
        )
        await asyncio.to_thread(self._registry.report, report)

    async def _keep(self, engine: Engine, supervisor: Supervisor) -> None:
        """Reconcile whenever the registry changed, and every second or so anyway."""
        loop = asyncio.get_running_loop()
        seen, due, heard = -1, 0.0, loop.time()
        while True:
            await asyncio.sleep(self._settings.poll_s)
            version = self._registry.data_version()
            state = self._condition.state
            if state is EngineState.DOWN:
                heard = loop.time()
            elif version != seen or loop.time() >= due or state is EngineState.STARTING:
                if await self._reconcile(engine):
                    seen, due = version, loop.time() + self._settings.reconcile_s
                    heard = loop.time()
                elif self._deaf_for(loop.time() - heard):
                    log.error("engine %s has been deaf: it is restarted", self._spec.name)
                    await supervisor.restart(grace_s=_HANG_GRACE_S)

    def _deaf_for(self, seconds: float) -> bool:
        # Before its first answer an engine may take as long as it needs: models are large.
        answered_before = self._ready_run == self._condition.run
        return answered_before and seconds >= self._settings.hang_s

    async def _reconcile(self, engine: Engine) -> bool:
        """One comparison with the registry; whether the engine answered."""
        before = self._condition
        if not await self._healthy(engine):
            if before.state is EngineState.READY:
                self._become(EngineState.STARTING)
            return False
        wanted = await asyncio.to_thread(
            self._registry.wanted,
            self._spec.served_name,
            now=self._clock(),
            drain_s=self._settings.drain_s,
        )
        try:
            residence = await reconcile(engine, wanted, before.residence, self._terms)
        except EngineError as error:
            # Once a run is enough: the next attempt follows in a moment.
            level = logging.WARNING if self._complained_of != before.run else logging.DEBUG
            log.log(level, "engine %s could not be reconciled: %s", self._spec.name, error)
            self._complained_of = before.run
            return False
        self._complained_of = None
        now = self._condition
        if now.run == before.run and now.state is not EngineState.DOWN:
            self._ready_run = before.run
            self._become(EngineState.READY, residence=residence)
        return True

    async def _healthy(self, engine: Engine) -> bool:
        """vLLM's server outlives its core for some seconds, and says so here only."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_HEALTH_TIMEOUT_S, self._settings.hang_s)):
                return await engine.healthy()
        return False


def _vocabulary(base: str) -> int:
    size = model_config(base).get("vocab_size")
    return size if isinstance(size, int) and size > 1 else _SMALLEST_VOCABULARY
