"""One vLLM process: what is run, and waiting until it answers."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from serving.engine import Engine
from serving.errors import LaunchError
from serving.launch import EngineSpec, Machine, argv, environment, model_config
from serving.preflight import check
from serving.supervisor import ChildProcess, Command, end_orphans

_POLL_S = 0.2
_LONGEST_SOCKET_FOLDER = 68
"""A Unix socket's path has at most 107 bytes, and vLLM adds a UUID to its folder. Elsewhere,
in /tmp by default, the sockets of every run that did not end well would stay for ever."""


def vllm_command(spec: EngineSpec, machine: Machine, run_dir: Path) -> Command:
    """What starts ``spec`` on this machine, logging and remembered under ``run_dir``."""
    env = environment(spec, os.environ, machine)
    sockets = _sockets(spec, run_dir)
    if len(str(sockets)) <= _LONGEST_SOCKET_FOLDER:
        env.setdefault("VLLM_RPC_BASE_PATH", str(sockets))
    return Command(
        name=f"vLLM {spec.name}",
        argv=argv(spec, machine, model_config(spec.base)),
        env=env,
        log=run_dir / f"{spec.name}.log",
        pid_file=run_dir / f"{spec.name}.pid",
    )


def prepare(spec: EngineSpec, machine: Machine, command: Command) -> None:
    """End what a dead predecessor left running, then check. LaunchError if it cannot start."""
    end_orphans(command.pid_file)
    sockets = _sockets(spec, command.pid_file.parent)
    sockets.mkdir(parents=True, exist_ok=True)
    for left in sockets.iterdir():
        left.unlink()
    check(spec, machine, os.environ)


def _sockets(spec: EngineSpec, run_dir: Path) -> Path:
    return run_dir.absolute() / f"{spec.name}.sockets"


async def wait_healthy(
    engine: Engine,
    child: ChildProcess,
    *,
    timeout_s: float,
    progress: Callable[[float], None] = lambda _: None,
) -> float:
    """Seconds until the engine answered; ``progress`` is told the seconds so far.

    LaunchError with the end of vLLM's log when it dies or takes too long.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not await engine.healthy():
        waited = loop.time() - started
        if not child.running:
            code = await child.wait()
            raise LaunchError(_with_log(child, f"ended with code {code} while starting"))
        if waited > timeout_s:
            raise LaunchError(_with_log(child, f"did not answer within {timeout_s:.0f} s"))
        progress(waited)
        await asyncio.sleep(_POLL_S)
    return loop.time() - started


def _with_log(child: ChildProcess, fault: str) -> str:
    log = child.command.log
    return f"{child.command.name} {fault}; the end of {log}:\n{child.last_lines()}"
