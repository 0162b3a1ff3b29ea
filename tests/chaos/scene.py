"""A data folder with rows in every place a row can be, as ``kill -9`` leaves it.

    python -m tests.chaos.scene FOLDER --seed 1

``scene.json`` in it says where the copies of each row are. Ages, from old to new:

* old: in the DuckDB file alone, their segments were let go of;
* kept: in the DuckDB file and in ``done/``;
* late: in the write-ahead file and in ``done/``;
* half: in the write-ahead file and in a live segment, which goes on;
* live: in a live segment alone.
"""

import argparse
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from gateway.log.cipher import Cipher, Keyring
from gateway.log.ingest import Ingester
from gateway.log.record import Edit, Erasure, Feedback, Invocation, Record, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from tests.chaos.writers import invocation

SIZES = {"old": 5000, "kept": 800, "late": 400, "half": 150, "live": 150}
LARGEST = 2000
SUBJECT = "0" * 32
"""Every 25th row is this one's, and is erased in the end."""
TABLES = ("invocations", "feedback", "edits")
MADE = "scene.json"


@dataclass(frozen=True, slots=True)
class Row:
    """A record that was acknowledged, and where its line was written."""

    table: str
    id: str
    mark: str
    age: str
    segment: str
    at: int
    end: int
    is_erased: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """Rows of a table, by rowid, and the blocks of the file that hold one of their columns."""

    table: str
    start: int
    stop: int
    blocks: tuple[int, ...]


@dataclass(slots=True)
class Scene:
    """The rows, and what the DuckDB file had of them at its last checkpoint."""

    rows: list[Row] = field(default_factory=list)
    rowids: dict[str, int] = field(default_factory=dict)
    extents: list[Extent] = field(default_factory=list)
    index: tuple[int, ...] = ()
    """Blocks that say where everything is."""

    def note(self, store: Store) -> None:
        """Remember where the file has what, right after a checkpoint."""
        for table in TABLES:
            for row in store.rows(f"SELECT id::VARCHAR AS id, rowid FROM {table}"):
                self.rowids[row["id"]] = row["rowid"]
            self.extents += _extents(store, table)
        told = store.rows("SELECT block_id FROM pragma_metadata_info('log')")
        self.index = tuple(row["block_id"] for row in told)


def read(folder: Path) -> Scene:
    """The scene of ``folder``."""
    return msgspec.json.decode((folder / MADE).read_bytes(), type=Scene)


def build(store: Store, spool: Path, rng: random.Random, cipher: Cipher | None) -> Scene:
    """Fill both. The process has to die while it holds ``store``: closed, it has no WAL."""
    scene = Scene()
    ingester = Ingester(store, spool, now=partial(datetime.now, UTC), cipher=cipher)
    for age in ("old", "kept", "late"):
        writer = SpoolWriter(spool, age, cipher=cipher, reserve=0)
        scene.rows += _written(writer, age, rng)
        if age == "kept":
            writer.append(_erasure())
        writer.close()
        _drain(ingester)
        if age != "late":
            store.checkpoint()
        if age == "old":
            for segment in (spool / "done").iterdir():
                segment.unlink()
        if age == "kept":
            scene.note(store)
    writer = SpoolWriter(spool, "half", cipher=cipher, reserve=0)
    scene.rows += _written(writer, "half", rng)
    _drain(ingester)
    scene.rows += _written(writer, "live", rng)
    return scene


def _written(writer: SpoolWriter, age: str, rng: random.Random) -> Iterator[Row]:
    for number in range(SIZES[age]):
        subject = SUBJECT if number % 25 == 0 and age in {"old", "kept"} else None
        call = invocation(rng, largest=LARGEST, subject_id=subject)
        yield _append(writer, age, call, "invocations", is_erased=subject is not None)
        if number % 5 == 0:
            said = _comment(call)
            yield _append(writer, age, said, "feedback", is_erased=subject is not None)
        if number % 20 == 1:
            yield _append(writer, age, _edit(call), "edits", is_erased=False)


def _append(
    writer: SpoolWriter,
    age: str,
    record: Invocation | Feedback | Edit,
    table: str,
    *,
    is_erased: bool,
) -> Row:
    writer.append(record)
    segment = writer.segment
    if segment is None:
        raise RuntimeError("a record was appended to no segment")
    end = segment.stat().st_size
    last = segment.read_bytes()[:-1].rfind(b"\n") if end < 1 << 16 else _line_start(segment, end)
    return Row(table, str(record.id), str(record.id), age, segment.name, last + 1, end, is_erased)


def _line_start(segment: Path, end: int) -> int:
    with segment.open("rb") as file:
        start = end - (1 << 16)
        file.seek(start)
        return start + file.read()[:-1].rfind(b"\n")


def _comment(call: Invocation) -> Feedback:
    record_id = new_id()
    return Feedback(
        id=record_id,
        ts=datetime.now(UTC),
        tenant=call.tenant,
        target="invocation",
        target_id=call.id,
        name="comment",
        explanation=str(record_id),
    )


def _edit(call: Invocation) -> Edit:
    record_id = new_id()
    return Edit(
        id=record_id,
        ts=datetime.now(UTC),
        tenant=call.tenant,
        invocation_id=call.id,
        tags={"mark": str(record_id)},
    )


def _erasure() -> Record:
    return Erasure(id=new_id(), ts=datetime.now(UTC), tenant="acme", subject_id=SUBJECT)


def _drain(ingester: Ingester) -> None:
    while ingester.run_once():
        pass


def _extents(store: Store, table: str) -> Iterator[Extent]:
    """Segments of columns. DuckDB counts their rows from the start of their row group."""
    segments = store.rows(
        "SELECT row_group_id, start, count, block_id, additional_block_ids, "
        "contains(column_path, ',') AS is_nested "
        f"FROM pragma_storage_info('{table}') ORDER BY ALL"
    )
    sizes: dict[int, int] = {}
    for one in segments:
        if not one["is_nested"]:
            group = one["row_group_id"]
            sizes[group] = max(sizes.get(group, 0), one["start"] + one["count"])
    for one in segments:
        group = one["row_group_id"]
        base = sum(size for other, size in sizes.items() if other < group)
        first, count = one["start"], one["count"]
        if one["is_nested"]:  # it counts its own elements: whose they are is not told
            first, count = 0, sizes[group]
        blocks = {one["block_id"], *(one["additional_block_ids"] or ())} - {-1}
        yield Extent(table, base + first, base + first + count, tuple(sorted(blocks)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    told = parser.parse_args()
    keys = Keyring.from_environment(os.environ)
    with Store(told.folder / "log.duckdb", keys=keys) as store:
        spool, rng = told.folder / "spool", random.Random(told.seed)
        scene = build(store, spool, rng, keys.spool if keys else None)
        (told.folder / MADE).write_bytes(msgspec.json.encode(scene))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
