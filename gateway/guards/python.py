"""A guard that is a function of a Python file."""

from pathlib import Path

from gateway.errors import CallFailed, CodeInvalid, GuardUnusable, SandboxUnusable
from gateway.guards.ask import GuardFailed
from gateway.model import PythonGuard
from gateway.sandbox import Limits, Sandbox

FUNCTION = "guard"

_SHORT = {
    b"null": b'{"action":"allow"}',
    b"true": b'{"action":"allow"}',
    b"false": b'{"action":"block"}',
}
"""What a function may return instead of a verdict."""


class Files:
    """The files of one worker, each once however many guards name it."""

    def __init__(self) -> None:
        self._sandboxes: dict[tuple[Path, float], Sandbox] = {}

    def of(self, guard: PythonGuard) -> Sandbox:
        """Where it is called, once ``start`` was awaited."""
        key = guard.file, guard.timeout_s
        if key not in self._sandboxes:
            limits = Limits(wall_s=guard.timeout_s)
            self._sandboxes[key] = Sandbox(guard.file, FUNCTION, limits)
        return self._sandboxes[key]

    async def start(self) -> None:
        """Load all of them. Raises GuardUnusable, which names the file and the line."""
        for sandbox in self._sandboxes.values():
            try:
                await sandbox.start()
            except (CodeInvalid, SandboxUnusable) as error:
                raise GuardUnusable(str(error)) from error

    async def close(self) -> None:
        """End their processes."""
        for sandbox in self._sandboxes.values():
            await sandbox.close()


class Function:
    """One of them, as a guard."""

    def __init__(self, guard: PythonGuard, files: Files) -> None:
        self._sandbox = files.of(guard)

    async def ask(self, question: bytes) -> bytes:
        """Its verdict, as JSON. Raises GuardFailed."""
        try:
            said = await self._sandbox.call(question)
        except CallFailed as error:
            raise GuardFailed(str(error)) from error
        return _SHORT.get(said, said)
