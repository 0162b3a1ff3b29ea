"""A second vLLM for rollouts, evaluation and candidates: started for a job, stopped after it."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from serving.engine import Engine
from serving.launch import EngineSpec, this_machine
from serving.supervisor import ChildProcess, Command
from serving.vllm import prepare, vllm_command, wait_healthy

log = logging.getLogger(__name__)


def leashed(command: Command) -> Command:
    """The same command, ended within a second when this process dies."""
    # By its path and isolated: whatever folder we run in, nothing there is imported for it.
    leash = (sys.executable, "-I", str(Path(__file__).with_name("leash.py")), str(os.getpid()))
    return replace(command, argv=(*leash, *command.argv))


class Workbench:
    """``async with Workbench(spec, run_dir) as engine``: an Engine that clients never reach.

    Un-gated adapters belong here and nowhere else: one with bad weights breaks the answers
    of all others in its engine. LaunchError when vLLM cannot start; nothing is left running
    then, nor after the block, nor when this process is killed. It is not restarted: a job
    whose engine died is retried whole.
    """

    def __init__(
        self,
        spec: EngineSpec,
        run_dir: Path,
        *,
        timeout_s: float = 300.0,
        grace_s: float = 10.0,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._progress = progress
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Engine:
        machine = this_machine()
        command = leashed(vllm_command(self.spec, machine, self._run_dir))
        await asyncio.to_thread(prepare, self.spec, machine, command)
        async with AsyncExitStack() as stack:
            child = await ChildProcess.start(command)
            stack.push_async_callback(child.stop, grace_s=self._grace_s)
            engine = await stack.enter_async_context(Engine(self.spec.url))
            seconds = await wait_healthy(
                engine, child, timeout_s=self._timeout_s, progress=self._progress
            )
            self._stack = stack.pop_all()
        log.info("workbench %s answers after %.1f s at %s", self.spec.name, seconds, self.spec.url)
        return engine

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
