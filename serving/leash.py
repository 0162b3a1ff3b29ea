"""``python -I leash.py PARENT COMMAND...``: a command that does not outlive its parent.

A workbench is of no use without the job that started it, and holds gigabytes; when that job is
killed, nobody else may ever come to end it. This process starts the command, passes signals
on, and ends the whole group within a second of the death of PARENT (a process id).
"""

import os
import signal
import subprocess
import sys
from types import FrameType

_LOOK_EVERY_S = 0.5


def main() -> int:
    """The command's exit code, or 128 plus the signal that ended it, as shells have it."""
    parent = int(sys.argv[1])
    child = subprocess.Popen(sys.argv[2:])

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    while True:
        try:
            code = child.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)
        else:
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
