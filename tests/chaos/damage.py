"""Bytes that are not what was written."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 64


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to a file: the offsets of changed bytes, and where it was cut, if it was."""

    file: Path
    kind: str
    offsets: tuple[int, ...]
    cut: int | None = None

    def touches(self, start: int, stop: int) -> bool:
        """Whether a byte from ``start`` to before ``stop`` is not what it was."""
        if self.cut is not None and stop > self.cut:
            return True
        return any(start <= offset < stop for offset in self.offsets)

    @property
    def first(self) -> int:
        return min((*self.offsets, *(() if self.cut is None else (self.cut,))))


def scattered(file: Path, rng: random.Random) -> Damage:
    """Up to 64 bytes anywhere."""
    size = file.stat().st_size
    return _changed(file, "scattered", [rng.randrange(size) for _ in range(_few(rng))], rng)


def burst(file: Path, rng: random.Random) -> Damage:
    """Up to 64 bytes in a row."""
    size = file.stat().st_size
    start = rng.randrange(size)
    return _changed(file, "burst", range(start, min(start + _few(rng), size)), rng)


def truncated(file: Path, rng: random.Random) -> Damage:
    """The end is missing."""
    cut = rng.randrange(file.stat().st_size)
    with file.open("r+b") as damaged:
        damaged.truncate(cut)
    return Damage(file, "truncated", (), cut)


KINDS: tuple[Callable[[Path, random.Random], Damage], ...] = (scattered, burst, truncated)


def _few(rng: random.Random) -> int:
    return int(2 ** rng.uniform(0, math.log2(MOST_BYTES)))


def _changed(file: Path, kind: str, offsets: "list[int] | range", rng: random.Random) -> Damage:
    with file.open("r+b") as damaged:
        for offset in sorted(set(offsets)):
            damaged.seek(offset)
            [was] = damaged.read(1)
            damaged.seek(offset)
            damaged.write(bytes([was ^ rng.randint(1, 255)]))
    return Damage(file, kind, tuple(sorted(set(offsets))))
