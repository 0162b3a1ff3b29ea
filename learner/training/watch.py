"""One trainer per job directory, and none without its learner."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from learner.errors import TrainingError

LOCK_WAIT_S = 10.0
"""How long a predecessor, whose learner was just killed, may take to die."""


def stop_with_parent() -> None:
    """Kill this process and its children once standard input closes.

    The learner holds the other end of the pipe, and the kernel closes it however the
    learner dies. Unlike PR_SET_PDEATHSIG this does not depend on the thread that forked.
    """

    def watch() -> None:
        # not through sys.stdin: its lock, held by a daemon thread, is fatal at exit
        while os.read(0, 4096):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="watch-stdin", daemon=True).start()


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the job directory; TrainingError when another process trains there."""
    with lock.open("a") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise TrainingError(f"another process trains in {lock.parent}")
            time.sleep(0.1)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
