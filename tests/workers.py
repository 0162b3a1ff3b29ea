"""Gateway workers as processes of their own, forked from one that has imported all they need.

Importing takes most of a worker's start, and hundreds of tests start one.
"""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from typing import Self

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.workers", "gateway.__main__", "uvicorn.loops.uvloop"])


def _serve(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    from gateway.__main__ import main

    main()


class Worker:
    """``with Worker(environment)``: what ``python -m gateway`` is; it is ended at the end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = _forks.Process(target=_serve, args=(dict(environment),))
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, once it has ended. Raises TimeoutError."""
        self._process.join(timeout_s)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"it still runs after {timeout_s} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()
