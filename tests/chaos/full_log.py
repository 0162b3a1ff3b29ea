"""The disk of the log itself fills up under its owner, and empties again.

    unshare -m python -m tests.chaos.full_log FOLDER FREE_MB WRITTEN_MB

With little space the write-ahead file cannot grow; with more, the checkpoint fails that follows
a commit which is durable, and DuckDB gives up. What happened is printed as JSON.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from tests.chaos.oracle import Verdict
from tests.chaos.small_disk import SmallDisk
from tests.chaos.victims import Victim
from tests.chaos.writers import LARGEST_BYTES, invocation

ROOM = 192 << 20
WITHIN_S = 120.0
TROUBLE = "the log is in trouble"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the rows, and of the owner."""

    troubled: bool
    """The owner said that it cannot go on."""
    gave_up: bool
    """DuckDB wanted to be opened anew."""
    drained: bool
    """Everything was taken in once there was space."""
    survived: bool
    """By the same process."""
    verdict: Verdict


def scenario(folder: Path, *, free: int, written: int) -> Report:
    """Fill the disk of the log, wait for the owner to say so, make room, wait for it to drain."""
    disk = SmallDisk(folder / "disk", size=free + ROOM, taken=ROOM)
    disk.mount()
    log, spool, output = disk.place / "log.duckdb", folder / "spool", folder / "owner.log"
    marks = _spooled(spool, written)
    arguments = ("tests.chaos.owner", "--log", str(log), "--spool", str(spool))
    with Victim("owner", *arguments, output=output) as owner:
        troubled = _until(lambda: TROUBLE in output.read_text(), owner)
        disk.make_room()
        drained = _until(lambda: not list(spool.glob("*.jsonl")), owner)
        survived = owner.code is None
    with Store(log) as store:
        verdict = Verdict.of(marks, store)
    gave_up = "has been invalidated" in output.read_text()
    return Report(troubled, gave_up, drained, survived, verdict)


def _spooled(spool: Path, written: int) -> dict[str, str]:
    writer, rng = SpoolWriter(spool, "w0", reserve=0), random.Random(1)
    marks = {}
    for _ in range(2 * written // LARGEST_BYTES):
        record = invocation(rng)
        writer.append(record)
        marks[str(record.id)] = str(record.id)
    writer.close()
    return marks


def _until(is_so: Callable[[], bool], owner: Victim) -> bool:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and owner.code is None:
        if is_so():
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("free_mb", type=int)
    parser.add_argument("written_mb", type=int)
    told = parser.parse_args()
    report = scenario(told.folder, free=told.free_mb << 20, written=told.written_mb << 20)
    sys.stdout.write(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
