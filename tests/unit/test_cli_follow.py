"""``ratchet log tail -f``."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from gateway.log import rows
from gateway.log.catalogue import query
from gateway.log.record import Invocation
from gateway.log.store import Store
from learner.cli.log import followed
from tests.factories import NOW, invocation


class Log:
    """The log of a test, as the command reads it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def take(self, at: datetime, *calls: Invocation) -> None:
        made = rows.table([rows.invocation(one, at, {}) for one in calls], rows.INVOCATIONS)
        self.store.append({"invocations": made}, [], at)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        return self.store.select_batches(sql)

    def query(self, name: str, parameters: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        asked = query(name).asked(parameters, NOW)
        return self.store.batches(asked.text, asked.parameters)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Store(tmp_path / "log.duckdb") as store:
        yield Log(store)


def test_a_call_that_took_long_is_shown_after_those_that_began_later(log: Log) -> None:
    old, slow, quick, last = (invocation() for _ in range(4))
    log.take(NOW, old, quick)
    seconds = [NOW + timedelta(seconds=n) for n in (1, 2, 3)]
    turns = iter(zip(seconds, [[slow], [], [last]], strict=True))

    def wait() -> None:
        at, calls = next(turns)
        log.take(at, *calls)

    seen = list(islice(followed(log, {"limit": "1"}, wait), 3))

    assert [str(row["id"]) for row in seen] == [str(one.id) for one in (quick, slow, last)]


def test_an_empty_log_is_followed_from_its_first_call_on(log: Log) -> None:
    first, second = invocation(), invocation()
    turns = iter([(NOW, first), (NOW + timedelta(seconds=1), second)])

    seen = list(islice(followed(log, {"limit": "5"}, lambda: log.take(*next(turns))), 2))

    assert [str(row["id"]) for row in seen] == [str(first.id), str(second.id)]
