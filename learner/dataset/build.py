"""From the log to a frozen dataset: select, remove duplicates, split, write."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa

from gateway.log.answer import prompt_hash
from gateway.log.chats import LEARNABLE
from gateway.log.filter import Filter
from gateway.log.record import new_id
from gateway.log.store import Store
from learner.dataset.formats import read_rft, reference_of
from learner.dataset.sample import Sample
from learner.dataset.snapshot import read, write
from learner.errors import DatasetError
from learner.evaluation.compare import LEAST

logger = logging.getLogger(__name__)

TRAIN = "train"
HELD_OUT = "held_out"

# A row counts from when both it and its feedback were in the log: either may come first.
# One whose bodies retention or erasure has taken has nothing left to learn from.
_DEMONSTRATED = """
SELECT i.id::VARCHAR AS id, i.request, i.prompt_hash, f.value AS demonstration
FROM feedback f JOIN invocations i ON f.target_id = i.id AND f.tenant = i.tenant
WHERE f.name = 'demonstration' AND f.target = 'invocation'
  AND i.request_model = ? AND i.tenant = ? AND {learnable} AND i.request IS NOT NULL
  AND greatest(f.ingest_ts, i.ingest_ts) <= ? AND {where}
QUALIFY row_number() OVER (PARTITION BY i.id ORDER BY f.id DESC) = 1
ORDER BY f.id
"""

_NEW = """
SELECT count(DISTINCT f.target_id) AS n
FROM feedback f JOIN invocations i ON f.target_id = i.id AND f.tenant = i.tenant
WHERE f.name = 'demonstration' AND f.target = 'invocation'
  AND i.request_model = ? AND i.tenant = ? AND {learnable}
  AND greatest(f.ingest_ts, i.ingest_ts) > ? AND {where}
"""

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Built:
    """A snapshot and what went into it."""

    path: Path
    train: int
    held_out: int
    duplicates: int
    """Rows dropped because an equal prompt has a newer demonstration."""
    leaked: int
    """Rows dropped because their prompt is in the held-out file."""

    def told(self) -> str:
        """The numbers in a sentence."""
        return (
            f"dataset {self.path.stem[:12]}: {self.train} samples to train on, {self.held_out} "
            f"held out; dropped {self.duplicates} duplicates, {self.leaked} held-out prompts"
        )


def count_new(  # noqa: PLR0913 - what is counted
    store: Store, alias: str, tenant: str, where: Filter, *, after: datetime | None, now: datetime
) -> int:
    """Invocations of ``alias`` whose demonstration entered the log after ``after``."""
    since = (after or _BEGINNING).replace(tzinfo=None)
    meant = where.sql(now)
    sql = _NEW.format(where=meant.text, learnable=LEARNABLE)
    count: int = store.rows(sql, [alias, tenant, since, *meant.parameters])[0]["n"]
    return count


def build(  # noqa: PLR0913 - what a dataset is made of
    store: Store,
    alias: str,
    *,
    tenant: str,
    where: Filter,
    held_out: float | Path,
    upto: datetime,
    folder: Path,
) -> Built:
    """Snapshot what the log knew at ``upto``. Same log, same settings: same file.

    Raises DatasetError when one of the splits would be empty.
    """
    meant = where.sql(upto)
    sql = _DEMONSTRATED.format(where=meant.text, learnable=LEARNABLE)
    rows = store.rows(sql, [alias, tenant, upto.replace(tzinfo=None), *meant.parameters])
    # Rows come oldest first, so of equal prompts the newest demonstration stays.
    by_prompt = {row["prompt_hash"]: row for row in rows}
    duplicates = len(rows) - len(by_prompt)
    if isinstance(held_out, Path):
        kept = {_prompt(sample): sample for sample in read_rft(held_out)}
        test = list(kept.values())
        train = [_sample(row) for key, row in by_prompt.items() if key not in kept]
    else:
        test = [_sample(row) for key, row in by_prompt.items() if _held(key, held_out)]
        train = [_sample(row) for key, row in by_prompt.items() if not _held(key, held_out)]
    leaked = len(by_prompt) - len(train) if isinstance(held_out, Path) else 0
    if not train or len(test) < LEAST:
        raise DatasetError(
            f"{alias}: {len(train)} samples to train on and {len(test)} held out; at least 1 and "
            f"{LEAST} are needed. Give more demonstrations (POST /v1/feedback) or raise held_out"
        )
    path = write(_splits(train, test), folder)
    return Built(path, len(train), len(test), duplicates, leaked)


def _splits(train: Iterable[Sample], test: Iterable[Sample]) -> Iterable[tuple[str, Sample]]:
    yield from ((TRAIN, sample) for sample in train)
    yield from ((HELD_OUT, sample) for sample in test)


def _held(key: str, share: float) -> bool:
    """By the prompt alone: a prompt once held out is never trained on, in any turn."""
    return int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:8], 16) < share * 2**32


def _prompt(sample: Sample) -> str:
    key = prompt_hash({"messages": sample.messages, "tools": sample.tools})
    if key is None:
        raise DatasetError(f"sample {sample.id} has no prompt")
    return key


def _sample(row: Mapping[str, Any]) -> Sample:
    request = json.loads(row["request"])
    demonstration = json.loads(row["demonstration"])
    return Sample(
        id=row["id"],
        messages=tuple(request["messages"]),
        tools=tuple(request.get("tools") or ()),
        reference_answer=reference_of(demonstration),
        demonstration=demonstration,
    )


def record_lineage(store: Store, built: Built, *, alias: str, upto: datetime, at: datetime) -> str:
    """Write into the log which invocations the snapshot holds; its id there."""
    dataset_id = str(new_id())
    rows = [
        {"dataset_id": dataset_id, "invocation_id": sample.id, "split": split}
        for split in (TRAIN, HELD_OUT)
        for sample in read(built.path, split)
        if _is_invocation(sample.id)
    ]
    dataset = {
        "id": dataset_id,
        "ts": at.replace(tzinfo=None),
        "task": alias,
        "upto_ts": upto.replace(tzinfo=None),
        "path": str(built.path),
        "sha256": built.path.stem,
        "n_rows": built.train + built.held_out,
    }
    tables = {
        "datasets": pa.Table.from_pylist([dataset]),
        "dataset_items": pa.Table.from_pylist(rows),
    }
    filled = {name: table for name, table in tables.items() if table.num_rows}
    store.append(filled, [], at.replace(tzinfo=None))
    return dataset_id


def _is_invocation(sample_id: str) -> bool:
    try:
        UUID(sample_id)
    except ValueError:
        return False
    return True
