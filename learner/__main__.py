"""``python -m learner --config FILE``: the control plane. Owns the log, turns the wheel."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import uvicorn
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from gateway.errors import KeyUnavailable, SpoolError, StoreError
from learner.api.app import create_app
from learner.api.owner import Owner
from learner.cycle import Cycle, Places
from learner.errors import ConfigError
from learner.jobs import LeaseStore, TurnStore
from learner.log import (
    open_erasures,
    open_ingester,
    open_log,
    open_upkeep,
    open_writer,
    sole_owner,
)
from learner.policy import policies
from learner.service import Service
from learner.settings import RatchetConfig, load
from learner.upkeep import Upkeep
from serving.database import open_database
from serving.registry import Registry

TICK_S = 1.0
FIRST_UPKEEP_AFTER = timedelta(minutes=1)
"""A learner that is often started anew keeps up, too."""

logger = logging.getLogger("learner")


def main() -> None:
    """Run until SIGTERM. A turn in work is left for the next learner to resume."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("apscheduler", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m learner")
    parser.add_argument("--config", type=Path, required=True)
    try:
        asyncio.run(serve(load(parser.parse_args().config)))
    except (ConfigError, KeyUnavailable, SpoolError, StoreError) as error:
        sys.exit(str(error))


async def serve(config: RatchetConfig) -> None:
    """Own the log and act, until SIGTERM."""
    now = partial(datetime.now, UTC)
    database = open_database(config.database)
    turns = TurnStore(database)
    with ExitStack() as stack:
        log = stack.enter_context(open_log(config))
        stack.enter_context(sole_owner(config.spool))
        registry = Registry.open(config.database)
        stack.callback(registry.close)
        owner = Owner(log, open_ingester(config, log, now), open_writer(config, "learner"), now)
        upkeep = open_upkeep(config, owner, turns)
        erasures = open_erasures(config, owner, upkeep, registry)
        stop_ingest = threading.Event()
        ingest = asyncio.create_task(
            asyncio.to_thread(owner.ingester.run, stop_ingest), name="ingest"
        )
        places = Places(
            datasets=config.data / "datasets",
            adapters=config.data / "adapters",
            jobs=config.data / "jobs",
            run=config.data / "run",
        )
        service = Service(
            log,
            turns,
            LeaseStore(database),
            Cycle(log, registry, places, now=now),
            policies(config),
            holder=f"{socket.gethostname()}:{os.getpid()}",
            now=now,
        )
        ticker = AsyncIOScheduler()
        ticker.add_job(service.tick, "interval", seconds=TICK_S, misfire_grace_time=None)
        ticker.add_job(
            _keep_up,
            "interval",
            (service, upkeep),
            hours=1,
            next_run_time=now() + FIRST_UPKEEP_AFTER,
            misfire_grace_time=None,
        )
        ticker.start()
        logger.info("the learner owns %s and runs %d policies", log.name, len(config.policies))
        try:
            await _answer(create_app(owner, erasures, turns), config.learner_socket, ingest)
        finally:
            ticker.shutdown(wait=False)
            await service.stop()
            service.release()
            await asyncio.to_thread(erasures.close)
            owner.spool.close()
            stop_ingest.set()
            await ingest


def _keep_up(service: Service, upkeep: Upkeep) -> None:
    """In a thread of the scheduler's, so that the learner goes on."""
    if service.leads:
        upkeep.tick()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, and that would end the
    process before its children are."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _answer(app: object, path: Path, ingest: asyncio.Task[None]) -> None:
    """Serve the socket until SIGTERM or Ctrl-C, or until ingest fails: then start over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)  # the socket is open to everybody, and whoever reaches it is trusted
    server = _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type] # uvicorn's own union of ASGI types
            uds=str(path),
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)  # noqa: FBT003
    ingest.add_done_callback(lambda _: setattr(server, "should_exit", True))
    await server.serve()


if __name__ == "__main__":
    main()
