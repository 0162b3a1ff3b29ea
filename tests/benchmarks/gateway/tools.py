"""The C tools: a mock upstream and a load generator, and the processes that are measured."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

HERE = Path(__file__).parent
START_S = 90.0
_STOP_S = 20.0


def compiled(folder: Path) -> tuple[Path, Path]:
    """The mock and the load generator, built into ``folder``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("no C compiler; on Debian: apt-get install -y gcc")
    for name in ("mock", "load"):
        source = HERE / f"{name}.c"
        subprocess.run([compiler, "-O2", "-o", folder / name, source, "-lm"], check=True)
    return folder / "mock", folder / "load"


class RequestsFailed(Exception):
    """Some requests of a measurement were not answered as they should."""


class Process:
    """A process tree on one core, and what it has used."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        core: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = Path(tempfile.mkstemp(prefix="bench-", suffix=".log")[1])
        self._popen = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, argv)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STOP_S)
        self._signal(signal.SIGKILL)  # whoever is left of the group
        self._popen.wait()
        self.log.unlink()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def wait_for(self, url: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        """Until ``url`` answers 200."""
        deadline = time.monotonic() + START_S
        while True:
            request = urllib.request.Request(url, data=body, headers=dict(headers))
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError as error:
                if self._popen.poll() is not None or time.monotonic() > deadline:
                    tail = self.log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{url} does not answer: {error}\n{tail}") from error
            time.sleep(0.1)

    def tree(self) -> list[psutil.Process]:
        """The process and all that came of it."""
        mine = psutil.Process(self._popen.pid)
        return [mine, *mine.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time of the whole tree."""
        times = [one.cpu_times() for one in self.tree()]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def rss_mb(self) -> float:
        return sum(one.memory_info().rss for one in self.tree()) / 1e6


class Load:
    """The load generator, on the core that is not the gateway's."""

    def __init__(self, tool: Path, *, core: int) -> None:
        self._tool = tool
        self._core = core

    def run(
        self,
        port: int,
        body: str,
        headers: Mapping[str, str],
        *,
        connections: int,
        seconds: float,
        rate: float = 0,
    ) -> dict[str, Any]:
        """Its figures: ``ok``, ``rps``, ``events``, ``lat_us`` and so on. Raises RequestsFailed."""
        argv = ["taskset", "-c", str(self._core), str(self._tool), str(port), str(HERE / body)]
        argv += ["-c", str(connections), "-d", str(seconds), "-r", str(rate)]
        for name, value in headers.items():
            argv += ["-H", f"{name}: {value}"]
        out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        figures: dict[str, Any] = json.loads(out)
        if figures["err"]:
            raise RequestsFailed(f"{figures['err']} requests failed: {figures['first_error']}")
        return figures
