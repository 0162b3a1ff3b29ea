"""Processes that are killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]


class Victim:
    """``python -m MODULE ARGUMENTS``, started anew after each kill; its output goes to a file."""

    def __init__(
        self, name: str, *command: str, output: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.kills = 0
        self._command = [sys.executable, "-m", *command]
        self.environment = os.environ | dict(env or {})
        self._output = output
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it exited; None while it runs."""
        return self._process.poll()

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self.environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """As ``kill -9`` does. A victim that had died by itself is a find, not a kill."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} died by itself; see {self._output}")
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.kills += 1

    def end(self) -> None:
        """As an operator does."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
