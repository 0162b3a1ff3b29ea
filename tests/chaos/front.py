"""What a gateway worker needs around it: the state it reads, and an engine to ask."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from gateway.keys import KeyStore
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.chaos.victims import Victim

ALIAS = "helpdesk"
REPORT_S = 2.0
UP_WITHIN_S = 60.0


class Front:
    """A folder with keys and routes; ``gateway()`` is a real worker on top of it."""

    def __init__(self, folder: Path, *, port: int, engine_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._engine_url = engine_url
        self._state = f"sqlite:///{folder / 'state.db'}"
        self._registry = Registry.open(self._state)
        self._registry.declare(ALIAS, "base", "base", datetime.now(UTC))
        database = open_database(self._state)
        _, self.key = KeyStore(database).create("chaos", tenant="acme", at=datetime.now(UTC))
        database.dispose()
        self.report()

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def gateway(self, **settings: object) -> Victim:
        """A worker, not started yet; ``settings`` are those of ``GATEWAY_*``."""
        told = {
            "port": self._port,
            "database": self._state,
            "spool": self.folder / "spool",
            "subject_key": self.folder / "subject.key",
            "learner": self.folder / "learner.sock",
            "spool_reserve": 0,
        } | settings
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in told.items()}
        return Victim("gateway", "gateway", output=self.folder / "gateway.log", env=environment)

    def report(self) -> None:
        """The engine says that it is ready, as its agent would."""
        at = datetime.now(UTC)
        report = EngineReport("e0", self._engine_url, "base", EngineState.READY, frozenset(), at)
        self._registry.report(report)

    async def keep_reporting(self) -> None:
        """For ever: a gateway forgets engines that fall silent."""
        while True:
            self.report()
            await asyncio.sleep(REPORT_S)

    async def until_up(self, session: aiohttp.ClientSession) -> None:
        """Wait until the worker answers. Raises TimeoutError."""
        deadline = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline:
            self.report()
            try:
                async with session.get(f"{self.url}/health/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
        raise TimeoutError(f"no gateway at {self.url}; see {self.folder / 'gateway.log'}")

    def close(self) -> None:
        self._registry.close()


def asks(mark: str, *, stream: bool = False, **more: object) -> dict[str, object]:
    """A request whose question begins with ``mark``."""
    message = {"role": "user", "content": f"{mark} how are things today"}
    return {"model": ALIAS, "messages": [message], "stream": stream} | more
