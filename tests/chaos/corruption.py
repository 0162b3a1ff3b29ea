"""Random bytes of a random file are damaged, and the log is started.

What may be missing is what has no undamaged copy left. The copies of a row are:

* its line in a live segment: damaged with any byte of it, or of the line break before it;
* its line in a kept segment (``done/``) or in the write-ahead file: one damaged byte damages the
  whole file, which is compressed, or replayed from its beginning;
* its place in the DuckDB file: damaged with any block that holds a part of one of its columns
  (DuckDB checks blocks, and reads rows of the same column segment together), or with the
  headers or the blocks that say where everything is: then the whole file is. Rows that are in
  that file alone may then all go; ``lost`` counts them, ``lost_beyond_damage`` does not.

A row that has an undamaged copy has to be in the log, once, with its body. Whatever is missing
must be named: by an incident at the place of the line, or by one that says the file was healed.
A segment that was cut exactly between two lines looks as if it had never been longer: no reader
can name what it lacks. What was erased must not come back.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tests.chaos import boot, damage, scene
from tests.chaos.boot import Found, Incident
from tests.chaos.damage import Damage
from tests.chaos.scene import Row, Scene
from tests.chaos.victims import ROOT

LOG = "log.duckdb"
WAL = "log.duckdb.wal"
HEADERS = 3 * 4096
BLOCK = 1 << 18
AT_ONCE = 2
BOOT_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Trial:
    """One damage, and what the start after it left."""

    seed: int
    file: str
    kind: str
    booted: bool
    lost: int = 0
    beyond: tuple[str, ...] = ()
    """Missing or changed although an undamaged copy existed."""
    unnamed: tuple[str, ...] = ()
    """Missing, and nothing says so."""
    doubled: int = 0
    resurrected: int = 0
    """Erased, and back."""
    said: str = ""

    @property
    def is_clean(self) -> bool:
        harmed = self.beyond or self.unnamed or self.doubled or self.resurrected
        return self.booted and not harmed


def trials(folder: Path, *, number: int, seed: int, env: Mapping[str, str]) -> list[Trial]:
    """Build a data folder once, then damage ``number`` copies of it."""
    original = folder / "original"
    original.mkdir(parents=True)
    _python("tests.chaos.scene", original, "--seed", str(seed), env=env)
    told = scene.read(original)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seeds = range(seed, seed + number)
        return list(pool.map(partial(_trial, original, told, env=env), seeds))


def _trial(original: Path, told: Scene, seed: int, *, env: Mapping[str, str]) -> Trial:
    rng = random.Random(seed)
    with _copy(original) as copy:
        harm = rng.choice(damage.KINDS)(_victim(copy, rng), rng)
        done = _python("tests.chaos.boot", copy, env=env)
        report = copy / boot.FOUND
        name = str(harm.file.relative_to(copy))
        if done.returncode or not report.exists():
            return Trial(seed, name, harm.kind, booted=False, said=done.stderr[-3000:])
        found = msgspec.json.decode(report.read_bytes(), type=Found)
        return _judged(seed, name, harm, told, found)


def _victim(copy: Path, rng: random.Random) -> Path:
    """The file to damage; the more rows it alone has, the more often."""
    spool = copy / "spool"
    live, done = list(spool.glob("*.jsonl")), list((spool / "done").iterdir())
    groups = rng.choices(([copy / LOG], [copy / WAL], live, done), weights=(45, 20, 20, 15))
    return rng.choice(sorted(groups[0]))


def _judged(seed: int, name: str, harm: Damage, told: Scene, found: Found) -> Trial:
    marks = dict(found.stored)
    expected = [row for row in told.rows if not row.is_erased]
    lost = [row for row in expected if marks.get(row.id) != row.mark]
    whole = _Copies(harm, told)
    lines = {row.at for row in told.rows if row.segment == harm.file.name}
    return Trial(
        seed,
        name,
        harm.kind,
        booted=True,
        lost=len(lost),
        beyond=tuple(f"{row.age} {row.table} {row.id}" for row in lost if whole.of(row)),
        unnamed=tuple(row.id for row in lost if not _named(row, harm, lines, found.incidents)),
        doubled=sum(Counter(one for one, _ in found.stored).values()) - len(marks),
        resurrected=sum(row.id in marks for row in told.rows if row.is_erased),
        said="; ".join(str(incident.detail) for incident in found.incidents),
    )


class _Copies:
    """Which copies of a row the damage has left."""

    def __init__(self, harm: Damage, told: Scene) -> None:
        self._harm = harm
        self._told = told
        self._name = harm.file.name
        in_file = self._name == LOG
        lost = {block for block in _blocks(told) if in_file and _touched(harm, block)}
        is_index = in_file and (harm.touches(0, HEADERS) or lost.intersection(told.index))
        self._extents = [
            extent for extent in told.extents if is_index or lost.intersection(extent.blocks)
        ]

    def of(self, row: Row) -> bool:
        """Whether there is an undamaged one."""
        if row.age == "old":
            return self._file(row)
        if row.age == "kept":
            return self._file(row) or not self._name.startswith(row.segment)
        if row.age == "late":
            return True  # one of its two files is not the damaged one
        line = self._name != row.segment or not self._harm.touches(max(0, row.at - 1), row.end)
        return line or (row.age == "half" and self._name != WAL)

    def _file(self, row: Row) -> bool:
        place = self._told.rowids[row.id]
        return not any(
            extent.table == row.table and extent.start <= place < extent.stop
            for extent in self._extents
        )


def _blocks(told: Scene) -> set[int]:
    return {*told.index, *(block for extent in told.extents for block in extent.blocks)}


def _touched(harm: Damage, block: int) -> bool:
    start = HEADERS + block * BLOCK
    return harm.touches(start, start + BLOCK)


def _named(row: Row, harm: Damage, lines: set[int], incidents: list[Incident]) -> bool:
    """Whether an incident tells of the row: at its line, behind it, or of the whole file."""
    if harm.file.name != row.segment:
        return any(incident.kind == "healed" for incident in incidents)
    return _quarantined(row, incidents) or harm.cut in lines


def _quarantined(row: Row, incidents: list[Incident]) -> bool:
    return any(
        incident.kind == "quarantined"
        and incident.segment == row.segment
        and incident.at_byte is not None
        and incident.at_byte <= row.end
        for incident in incidents
    )


@contextmanager
def _copy(original: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=original.parent) as place:
        yield Path(shutil.copytree(original, Path(place) / "data"))


def _python(
    module: str, *arguments: object, env: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | dict(env),
        capture_output=True,
        text=True,
        timeout=BOOT_WITHIN_S,
        check=False,
    )
