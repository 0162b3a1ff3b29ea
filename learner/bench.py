"""The workbench of one turn, started in the background while demonstrations are learnt."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.engine import Engine
from serving.launch import EngineSpec
from serving.workbench import Workbench


class Bench:
    """``async with Bench(...) as bench`` returns at once; ``await bench.engine()`` waits for vLLM.

    Raises LaunchError, from ``engine``, when vLLM cannot start. Nothing is left running after.
    """

    def __init__(self, spec: EngineSpec, run: Path) -> None:
        self._workbench = Workbench(spec, run)
        self._opening: asyncio.Task[Engine]

    async def __aenter__(self) -> Self:
        self._opening = asyncio.create_task(self._workbench.__aenter__())
        return self

    async def engine(self) -> Engine:
        """The engine, once it answers."""
        return await asyncio.shield(self._opening)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opening.cancel():
            with suppress(asyncio.CancelledError):
                await self._opening
        elif self._opening.exception() is None:
            await self._workbench.__aexit__(exc_type, exc, traceback)
