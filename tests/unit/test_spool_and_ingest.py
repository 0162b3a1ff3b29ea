import fcntl
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from gateway.errors import BadQuery, StoreError, StoreLocked
from gateway.log.ingest import Ingester
from gateway.log.record import encode
from gateway.log.spool import SpoolWriter, sealed
from gateway.log.store import Offset, Store
from tests.factories import NOW, body, demonstration, invocation


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def ingester(store: Store, spool: Path) -> Ingester:
    return Ingester(store, spool, now=lambda: NOW)


def count(store: Store, table: str = "invocations") -> int:
    return int(store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def test_what_was_spooled_is_in_the_log_once_even_if_ingested_again(
    store: Store, spool: Path
) -> None:
    writer = SpoolWriter(spool, "w0")
    first = invocation()
    writer.append(first)
    writer.append(demonstration(first.id, order="7"))

    taken = ingester(store, spool).run_once()
    again = ingester(store, spool).run_once()

    assert (taken, again) == (2, 0)
    assert (count(store), count(store, "feedback")) == (1, 1)
    writer.close()


def test_a_segment_is_read_while_it_grows_and_retired_once_its_writer_is_gone(
    store: Store, spool: Path
) -> None:
    writer = SpoolWriter(spool, "w0")
    ingest = ingester(store, spool)
    writer.append(invocation())
    ingest.run_once()
    assert not sealed(writer.segment)

    writer.append(invocation())
    writer.close()
    ingest.run_once()
    ingest.run_once()

    assert count(store) == 2
    assert not list(spool.glob("*.jsonl"))
    assert [file.name for file in (spool / "done").iterdir()] == [f"{writer.segment.name}.gz"]


def test_a_torn_last_line_is_left_until_it_is_whole(store: Store, spool: Path) -> None:
    spool.mkdir()
    segment = spool / f"dead-{uuid4()}.jsonl"
    line = encode(invocation())
    segment.write_bytes(encode(invocation()) + line[:20])
    ingest = ingester(store, spool)

    ingest.run_once()
    segment.write_bytes(segment.read_bytes() + line[20:])
    ingest.run_once()

    assert count(store) == 2


def test_a_damaged_line_goes_to_quarantine_and_the_rest_is_kept(store: Store, spool: Path) -> None:
    spool.mkdir()
    segment = spool / f"dead-{uuid4()}.jsonl"
    segment.write_bytes(encode(invocation()) + b"{half\n" + encode(invocation()))

    ingester(store, spool).run_once()

    assert count(store) == 2
    assert (spool / "quarantine" / segment.name).read_bytes() == b"{half\n"


def test_a_failed_commit_leaves_nothing_and_is_repeated_whole(store: Store, spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    ingest = ingester(store, spool)
    store.close()
    with pytest.raises(StoreError):
        ingest.run_once()

    store.reopen()
    ingester(store, spool).run_once()

    assert count(store) == 1
    writer.close()


def test_rows_and_offsets_are_committed_together_or_not_at_all(store: Store) -> None:
    broken = {"no_such_table": store.table("SELECT 1 AS a")}

    with pytest.raises(StoreError):
        store.append(broken, [Offset("s", 10, 1)], NOW.replace(tzinfo=None))

    assert store.offsets() == {}


def test_bodies_are_stored_compressed(store: Store, spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    for _ in range(3000):
        writer.append(invocation(response=body("the same long answer " * 40)))
    writer.close()

    ingester(store, spool).run_once()
    store.close()
    store.reopen()

    kinds = store.rows(
        "SELECT DISTINCT compression FROM pragma_storage_info('log.invocations') "
        "WHERE column_name = 'response' AND segment_type = 'JSON'"
    )
    assert {row["compression"] for row in kinds} == {"ZSTD"}


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "log.duckdb"
    code = (
        "import sys; from pathlib import Path; from gateway.log.store import Store\n"
        "s = Store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(StoreLocked, match="another process"):
            Store(path)
        owner.communicate()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM invocations",
        "SELECT 1; SELECT 2",
        "COPY invocations TO 'x.csv'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELEKT 1",
        "SELECT nope FROM invocations",
    ],
)
def test_only_a_single_harmless_select_is_answered(store: Store, sql: str) -> None:
    with pytest.raises(BadQuery):
        store.select(sql)


def test_a_body_that_json_cannot_hold_does_not_stop_the_rest(store: Store, spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation(request=msgspec.Raw(b'{"x": ' + b"9" * 5000 + b"}")))
    writer.append(invocation())
    writer.close()

    ingester(store, spool).run_once()

    assert count(store) == 1
    assert list((spool / "quarantine").iterdir())


def test_a_segment_is_locked_before_it_can_be_seen(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ingester(store, spool)
    lock = fcntl.flock

    def polled(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            ingest.run_once()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", polled)
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    monkeypatch.undo()
    writer.close()
    ingest.run_once()

    assert count(store) == 1
