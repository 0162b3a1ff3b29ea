"""Opens a log, ingests what is left and reads every row of every table: what a start has to do.

    python -m tests.chaos.boot FOLDER

A process of its own, because a damaged file may take it down. What it found is ``boot.json``.
"""

import argparse
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from gateway.errors import StoreError
from gateway.log.cipher import Keyring
from gateway.log.ingest import Ingester
from gateway.log.store import Store

FOUND = "boot.json"
ATTEMPTS = 10
"""As the learner does, it mends and tries again; but not for ever."""
_TABLES = "SELECT table_name AS name FROM duckdb_tables() WHERE database_name = 'log'"
_STORED = """
SELECT id::VARCHAR AS id, split_part(request->>'$.messages[0].content', ' ', 1) AS mark
  FROM invocations
UNION ALL SELECT id::VARCHAR, explanation FROM feedback
UNION ALL SELECT id::VARCHAR, tags['mark'] FROM edits
"""


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of ``incidents``."""

    kind: str
    n: int
    segment: str | None
    at_byte: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the log after the start."""

    stored: list[tuple[str, str | None]]
    incidents: list[Incident]


def boot(folder: Path, keys: Keyring | None) -> Found:
    """Start as often as the learner would. Raises StoreError when that does not help."""
    with Store(folder / "log.duckdb", keys=keys) as store:
        cipher = keys.spool if keys else None
        ingester = Ingester(store, folder / "spool", now=partial(datetime.now, UTC), cipher=cipher)
        for _ in range(ATTEMPTS):
            try:
                while ingester.run_once():
                    pass
                found = _read(store)
            except StoreError as error:
                trouble = error
            else:
                # What reading has healed may be missing rows: they are ingested again.
                if not store.broken:
                    return found
        raise trouble


def _read(store: Store) -> Found:
    for table in store.rows(_TABLES):
        for _ in store.batches(f"SELECT * FROM {table['name']}"):
            pass
    incidents = store.rows("SELECT kind, n, segment, at_byte, detail FROM incidents")
    return Found(
        [(row["id"], row["mark"]) for row in store.rows(_STORED)],
        [Incident(**row) for row in incidents],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    found = boot(folder, Keyring.from_environment(os.environ))
    (folder / FOUND).write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
