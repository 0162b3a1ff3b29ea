"""What is damaged goes aside, what can be read is saved; a crash in between is taken up again."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import StoreError

ATTEMPTS = 3
"""A salvage that takes the process down is not tried for ever."""


class Healing:
    """Replaces a damaged file by what ``salvage(damaged, new)`` saves of it.

    The steps: note down the name that the damaged file will get, rename it, save into a new
    file, rename that, forget the note. Whoever finds a note goes on from where it broke off.
    """

    def __init__(self, path: Path, salvage: Callable[[Path, Path], str]) -> None:
        self._path = path
        self._note = path.with_name(path.name + ".healing")
        self._new = path.with_name(path.name + ".salvaged")
        self._salvage = salvage

    @property
    def due(self) -> bool:
        """Whether a healing was broken off."""
        return self._note.exists()

    def run(self) -> str:
        """Heal the file, or go on healing it; what was done, in a sentence."""
        damaged, attempts = self._begin()
        if damaged.exists() and self._path.exists():
            self._note.unlink()
            return f"{self._path} had been damaged; it is now {damaged}"
        _move(self._path, damaged)
        for file in files(self._new):
            file.unlink(missing_ok=True)
        if attempts < ATTEMPTS:
            done = self._saved(damaged)
            self._new.replace(self._path)
        else:
            done = "nothing could be saved of it"
        self._note.unlink()
        sync(self._path.parent)
        return f"{self._path} was damaged and is now {damaged}; {done}"

    def _saved(self, damaged: Path) -> str:
        try:
            done = self._salvage(damaged, self._new)
            sync(self._new)
        except (StoreError, OSError):
            # No room, say: that is no attempt, and the next one may succeed.
            self._note.write_text(f"{damaged.name}\n")
            raise
        return done

    def _begin(self) -> tuple[Path, int]:
        """Where the damaged file goes, and how often that has been tried; noted down."""
        if not self._note.exists():
            self._note.write_text(f"{aside(self._path).name}\n")
        name, *attempts = self._note.read_text().splitlines()
        with self._note.open("a") as note:
            note.write("tried\n")
            note.flush()
            os.fsync(note.fileno())
        return self._path.with_name(name), len(attempts)


def put_aside_wal(path: Path) -> str:
    """Move the write-ahead file of ``path`` away; what was done, in a sentence."""
    moved = [str(file.rename(aside(file))) for file in files(path)[1:] if file.exists()]
    return f"the write-ahead file of {path} cannot be replayed and is now {', '.join(moved)}"


def aside(path: Path) -> Path:
    """A name that says that ``path`` is damaged, and since when."""
    stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return path.with_name(f"{path.name}.damaged-{stamp}")


def all_aside(path: Path) -> list[Path]:
    """Every file of ``path`` that has been put aside."""
    return [
        *path.parent.glob(f"{path.name}.damaged-*"),
        *path.parent.glob(f"{path.name}.wal*.damaged-*"),
    ]


def files(path: Path) -> tuple[Path, ...]:
    """The file and those that DuckDB makes beside it, by the names in its source."""
    beside = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
    return tuple(path.with_name(path.name + suffix) for suffix in beside)


def sync(path: Path) -> None:
    """Have a file or folder on the device. Closing it drops the locks this process has on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(path: Path, target: Path) -> None:
    """Rename a file and those beside it: the write-ahead file goes by the file's name."""
    for source, destination in zip(files(path), files(target), strict=True):
        if source.exists():
            source.rename(destination)
    sync(path.parent)
