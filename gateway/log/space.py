"""How much the spool may still take: its own quota, and what the disk must keep free."""

import os
import time
from pathlib import Path

from gateway.errors import SpoolError
from gateway.log.segment import SUFFIX

LOOK_EVERY_S = 1.0
SURVEY_EVERY_S = 10.0


class Space:
    """Room in one spool directory, which all workers share.

    What this worker writes is counted at once; what others do is looked up: the free space
    every second, the segments, which may be a thousand, every ten seconds. While records are
    refused both are looked at every second, so that writing goes on as soon as it can.
    """

    def __init__(self, directory: Path, *, quota: int, reserve: int) -> None:
        self._directory = directory
        self._quota = quota
        self._reserve = reserve
        self._used = self._free = 0
        self._looked = float("-inf")
        self._surveyed = float("-inf")

    def take(self, n: int, further: int = 0) -> None:
        """Count ``n`` bytes as written. Raises SpoolError when those and ``further`` do not fit.

        Raises OSError when the directory cannot be looked at.
        """
        now = time.monotonic()
        if now - self._looked > LOOK_EVERY_S:
            self._look(now)
        old = LOOK_EVERY_S if self._lacks(n + further) else SURVEY_EVERY_S
        if now - self._surveyed > old:
            self._survey(now)
        if why := self._lacks(n + further):
            raise SpoolError(why)
        self._used += n
        self._free -= n

    def _survey(self, now: float) -> None:
        used = 0
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    used += _size(entry)
        self._used = used
        self._surveyed = now

    def _look(self, now: float) -> None:
        disk = os.statvfs(self._directory)
        self._free = disk.f_bavail * disk.f_frsize
        self._looked = now

    def _lacks(self, n: int) -> str | None:
        """Why ``n`` bytes have no room; None when they have."""
        if self._used + n > self._quota:
            return (
                f"the spool {self._directory} is at its quota of {_said(self._quota)}: is the "
                "learner running? It takes what is spooled into the log. `ratchet up` starts it; "
                "`log.spool_quota` sets the quota"
            )
        if self._free - n < self._reserve:
            return (
                f"the disk of the spool {self._directory} has no more than the "
                f"{_said(self._reserve)} left that stay free: make room, or lower `log.reserve`"
            )
        return None


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # ingested meanwhile
        return 0


def _said(n: int) -> str:
    for unit, shift in (("GB", 30), ("MB", 20)):
        if n >= 1 << shift:
            return f"{n / (1 << shift):.1f} {unit}"
    return f"{n} bytes"
