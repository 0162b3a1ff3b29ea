"""Erasure, retention and removal are the same in a DuckDB file and in a DuckLake."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gateway.log.erasure import Erased
from gateway.log.ingest import Ingester
from gateway.log.record import Erasure, Feedback, new_id
from gateway.log.retention import expire
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from tests.factories import NOW, body, demonstration, invocation

MARKER = "pomegranate-4711"
DAY = timedelta(days=1)


@pytest.fixture(params=["log.duckdb", "ducklake:sqlite:"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    scheme = request.param if request.param.endswith(":") else ""
    name = "catalog.db" if scheme else request.param
    with Store(f"{scheme}{tmp_path / name}", lake=tmp_path / "lake") as store:
        yield store


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path / "spool", "w0", reserve=0)
    yield writer
    writer.close()


def test_erased_and_expired_rows_leave_the_log_and_its_files(
    store: Store, spool: SpoolWriter, tmp_path: Path
) -> None:
    mine = [
        invocation(subject_id="a1" * 16, request=body(MARKER), conversation_id=MARKER)
        for _ in range(3)
    ]
    bare = invocation(request=body(MARKER), stored=True)
    old, faded = invocation(ts=NOW - 90 * DAY), invocation(ts=NOW - 40 * DAY)
    other, late = invocation(), invocation(subject_id="a1" * 16, request=body(MARKER))
    said = Feedback(
        id=new_id(),
        ts=NOW,
        tenant="default",
        target="episode",
        target_id=mine[0].episode_id,
        name="good",
        score_value=1.0,
    )
    kept = demonstration(other.id, order="8")
    about = [demonstration(mine[0].id, order=MARKER), demonstration(old.id, order="7"), said]
    ingester = Ingester(store, tmp_path / "spool", now=lambda: NOW)

    for record in (*mine, bare, old, faded, other, *about, kept):
        spool.append(record)
    ingester.run_once()
    spool.append(Erasure(id=new_id(), ts=NOW, tenant="default", subject_id="a1" * 16))
    spool.append(
        Erasure(id=new_id(), ts=NOW, tenant="default", invocation_id=bare.id, scope="bodies")
    )
    ingester.run_once()
    spool.append(late)
    ingester.run_once()
    expired = expire(store, bodies=30 * DAY, rows=60 * DAY, now=NOW)
    store.compact()

    rows = store.rows("SELECT id::VARCHAR AS id, request IS NULL AS bare FROM invocations")
    assert {row["id"]: row["bare"] for row in rows} == {
        str(bare.id): True,
        str(faded.id): True,
        str(other.id): False,
    }
    assert store.rows("SELECT id::VARCHAR AS id FROM feedback") == [{"id": str(kept.id)}]
    assert (expired.bodies, expired.rows) == (1, 1)
    steps = "SELECT invocations, feedback FROM erasure_steps ORDER BY erasure_id, invocations DESC"
    assert store.rows(steps) == [
        {"invocations": 3, "feedback": 2},
        {"invocations": 1, "feedback": 0},  # what came late
        {"invocations": 1, "feedback": 0},
    ]
    assert Erased.read(store).covers(mine[0])
    assert not [path for path in tmp_path.rglob("*") if _holds(path)]


def _holds(path: Path) -> bool:
    """Whether a file of the log holds the marker; the spool has its own test."""
    if not path.is_file() or "spool" in path.parts:
        return False
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content = str(pq.read_table(path).to_pylist()).encode()
    return MARKER.encode() in content
