"""Disks of a few megabytes, in a mount namespace that goes with its process."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.victims import ROOT

_TRY = 'mkdir -p "$0" && mount -t tmpfs -o size=1m tmpfs "$0"'


def unshare(scratch: Path) -> list[str] | None:
    """The command that mounts of one's own are made under; None where that is not allowed."""
    for flags in (("-m",), ("-Urm",)):
        command = ["unshare", *flags]
        try:
            tried = subprocess.run(
                [*command, "sh", "-c", _TRY, str(scratch)], capture_output=True, check=False
            )
        except FileNotFoundError:
            return None
        if tried.returncode == 0:
            return command
    return None


def run(command: list[str], module: str, folder: Path, *arguments: str) -> str:
    """What ``python -m module folder arguments`` prints, inside. Raises CalledProcessError."""
    told = [*command, sys.executable, "-m", module, str(folder), *arguments]
    done = subprocess.run(told, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A tmpfs of ``size`` bytes, of which a ballast takes ``taken`` until it is let go."""

    place: Path
    size: int
    taken: int

    def mount(self) -> None:
        """Only inside ``unshare``."""
        self.place.mkdir(parents=True)
        options = f"size={self.size}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.place], check=True)
        self._ballast.write_bytes(bytes(self.taken))

    def make_room(self) -> None:
        """Space returns."""
        self._ballast.unlink()

    @property
    def free(self) -> int:
        disk = os.statvfs(self.place)
        return disk.f_bavail * disk.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.place / "ballast"
