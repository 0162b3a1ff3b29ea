"""The log in one DuckDB file: who may own it, and how it heals."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from gateway.errors import BadQuery, StoreBroken, StoreError, StoreLocked
from gateway.log.cipher import Keyring
from gateway.log.engine import connect
from gateway.log.header import checksum
from gateway.log.native import DuckFile
from gateway.log.record import new_id
from gateway.log.session import Session
from gateway.log.store import Offset, Store
from tests.factories import NOW

AT = NOW.replace(tzinfo=None)
KEYS = Keyring.of(b"k" * 32)
BLOCK = 262_144


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.duckdb"


def calls(count: int, *, body: str = "") -> pa.Table:
    """Rows of ``invocations`` whose bodies do not compress."""
    ids = [str(new_id()) for _ in range(count)]
    fixed = dict.fromkeys(
        ("tenant", "task", "operation_name", "provider_name", "origin", "request_model"), "x"
    )
    return pa.Table.from_pylist(
        [
            fixed
            | {"id": one, "episode_id": one, "ts": AT, "ingest_ts": AT, "train_ok": True}
            | {"stored": False, "schema_version": 1, "response": "{}"}
            | {"request": f'"{body or os.urandom(400).hex()}"'}
            for one in ids
        ]
    )


def fill(path: Path, *, in_file: int, in_wal: int, keys: Keyring | None = None) -> None:
    """A log whose owner was killed: some rows are checkpointed, some are not."""
    with Store(path, keys=keys) as store:
        store.append({"invocations": calls(in_file)}, [Offset("first", 1, in_file)], AT)
        store.checkpoint()
        store.append({"invocations": calls(in_wal)}, [Offset("second", 1, in_wal)], AT)
        files = {file: file.read_bytes() for file in path.parent.iterdir()}
    for file, content in files.items():
        file.write_bytes(content)


def damage(file: Path, at: int, count: int = 8) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + count] = bytes(byte ^ 0xFF for byte in content[at : at + count])
    file.write_bytes(content)


def block_of(path: Path, column: str) -> int:
    """Where the first block of a column of ``invocations`` begins in the file."""
    with Store(path) as store:
        [row] = store.rows(
            "SELECT min(block_id) AS id FROM pragma_storage_info('log.invocations') "
            "WHERE column_name = ? AND block_id >= 0",
            [column],
        )
    return 3 * 4096 + int(row["id"]) * BLOCK


def count(store: Store) -> int:
    return int(store.rows("SELECT count(*) AS n FROM invocations")[0]["n"])


def put_aside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("*damaged-*") if file.suffix != ".txt")


def test_bodies_are_stored_compressed(path: Path) -> None:
    rows = calls(3000, body="the same long answer " * 40)
    with Store(path) as store:
        store.append({"invocations": rows}, [], AT)

    with Store(path) as store:
        kinds = store.rows(
            "SELECT DISTINCT compression FROM pragma_storage_info('log.invocations') "
            "WHERE column_name = 'request' AND segment_type = 'JSON'"
        )

    assert {row["compression"] for row in kinds} == {"ZSTD"}


def test_a_second_owner_is_refused_and_told_why(path: Path) -> None:
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
        with pytest.raises(StoreLocked, match=r"another process \(is `ratchet up` running"):
            Store(path)
        owner.communicate()


def test_a_log_of_an_earlier_version_gets_the_columns_it_lacks(path: Path) -> None:
    with Store(path) as store:
        store.append({"invocations": calls(3)}, [], AT)
    with duckdb.connect(str(path)) as earlier:
        earlier.execute("DROP VIEW episodes; DROP VIEW feedback_current")
        earlier.execute("ALTER TABLE invocations DROP COLUMN origin")
        for column in ("stored", "key_id", "verdicts"):
            earlier.execute(f"ALTER TABLE invocations DROP COLUMN {column}")
        earlier.execute("COMMENT ON TABLE spool_segments IS 'earlier'")

    with Store(path) as store:
        store.append({"invocations": calls(1)}, [], AT)
        rows = store.rows("SELECT origin, stored, count(*) AS n FROM invocations GROUP BY ALL")

    assert {(row["origin"], row["stored"], row["n"]) for row in rows} == {
        ("gateway", False, 3),
        ("x", False, 1),
    }


def test_a_file_that_is_open_here_already_is_refused(path: Path) -> None:
    with Store(path), pytest.raises(StoreLocked):
        Store(path)


def test_a_damaged_write_ahead_file_is_put_aside_and_the_rest_is_kept(path: Path) -> None:
    fill(path, in_file=100, in_wal=10)
    damage(path.with_name("log.duckdb.wal"), 400)

    with Store(path) as store:
        healed = store.take_healed()
        again = store.take_healed()
        rows, offsets = count(store), store.offsets()

    assert (rows, offsets) == (100, {"first": 1})
    assert len(healed) == 1
    assert "write-ahead file" in healed[0]
    assert again == ()
    assert [name.split("-")[0] for name in put_aside(path)] == ["log.duckdb.wal.damaged"]


@pytest.mark.parametrize("at", [0, 8, 60, 4096, 4104, 6000, 8192, 8200], ids=str)
def test_a_damaged_header_is_mended_and_every_checkpointed_row_is_saved(
    path: Path, at: int
) -> None:
    fill(path, in_file=100, in_wal=10)
    damage(path, at)

    with Store(path) as store:
        [healed] = store.take_healed()
        rows, offsets = count(store), store.offsets()

    assert rows >= 100
    assert offsets == {}
    assert f"{rows} rows were saved" in healed


@pytest.mark.parametrize(
    ("keys", "at"),
    [(None, 12288 + 9000), (KEYS, 0), (KEYS, 8200), (KEYS, 12288)],
    ids=["catalog", "encrypted file", "encrypted checkpoint", "encrypted catalog"],
)
def test_a_log_that_cannot_be_read_at_all_makes_room_for_a_new_one(
    path: Path, at: int, keys: Keyring | None
) -> None:
    fill(path, in_file=100, in_wal=10, keys=keys)
    damage(path, at)

    with Store(path, keys=keys) as store:
        healed = store.take_healed()
        offsets = store.offsets()
        store.append({"invocations": calls(5)}, [], AT)
        rows = count(store)

    assert len(healed) == 1
    assert "log.duckdb.damaged-" in healed[0]
    assert offsets == {}
    assert rows >= 5
    with Store(path, keys=keys) as store:
        assert count(store) == rows
        assert store.take_healed() == ()


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
def test_a_damaged_body_costs_the_bodies_around_it_and_no_row(
    path: Path, keys: Keyring | None
) -> None:
    fill(path, in_file=9000, in_wal=10, keys=keys)
    damage(path, path.stat().st_size // 2)

    with Store(path, keys=keys) as store:
        with pytest.raises(StoreBroken):
            store.table("SELECT hash(request) FROM invocations")
        was_broken = store.broken
        store.reopen()
        [row] = store.rows("SELECT count(*) AS n, count(request) AS bodies FROM invocations")
        [healed] = store.take_healed()

    assert was_broken
    assert not store.broken
    assert row["n"] == 9010
    assert 4000 < row["bodies"] < 9010
    [lost] = path.parent.glob("*.lost.txt")
    assert len(lost.read_text().splitlines()) == 9010 - row["bodies"]
    assert lost.name in healed


def test_rows_that_cannot_be_read_are_counted_and_named(path: Path) -> None:
    fill(path, in_file=9000, in_wal=0)
    damage(path, block_of(path, "tenant") + 5000)

    with Store(path) as store:
        with pytest.raises(StoreBroken):
            store.table("SELECT hash(i) FROM invocations i")
        store.reopen()
        rows = count(store)
        [healed] = store.take_healed()

    assert rows < 9000
    assert f"{9000 - rows} were not" in healed


def test_damage_that_a_checkpoint_meets_is_healed_too(path: Path) -> None:
    fill(path, in_file=9000, in_wal=0)
    damage(path, path.stat().st_size // 2)

    with Store(path) as store:
        with pytest.raises(StoreBroken):
            store.compact()
        store.reopen()
        store.compact()

        assert count(store) == 9000
    assert put_aside(path) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT (request->>'$')::INT FROM invocations",
        "SELECT json(request->>'$') FROM invocations",
        "SELECT url_decode('%ff')",
        'FROM "Corrupt database file"',
    ],
)
@pytest.mark.parametrize("said", ["Corrupt database file", "it has been invalidated"])
def test_what_a_client_said_is_no_sign_of_damage(path: Path, sql: str, said: str) -> None:
    with Store(path) as store:
        store.append({"invocations": calls(1, body=said)}, [], AT)

        with pytest.raises(BadQuery):
            store.select(sql)

        assert not store.broken


def test_a_healing_that_was_broken_off_is_taken_up_again(path: Path) -> None:
    fill(path, in_file=9000, in_wal=10)
    damaged = path.with_name("log.duckdb.damaged-20260901T120000.000000Z")
    path.with_name("log.duckdb.healing").write_text(f"{damaged.name}\ntried\n")
    path.rename(damaged)
    path.with_name("log.duckdb.salvaged").write_bytes(b"half a file")

    with Store(path) as store:
        healed = store.take_healed()
        rows = count(store)

    assert rows == 9010
    assert damaged.name in healed[0]
    assert not path.with_name("log.duckdb.healing").exists()


def test_an_extension_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="pip install duckdb-extension-no-such=="):
        connect(tmp_path / "tmp", "no_such")


def test_a_query_that_begins_while_its_reader_is_ended_is_stopped(path: Path) -> None:
    connection = duckdb.connect(":memory:")
    connection.execute("ATTACH ':memory:' AS log")
    session = Session(connection, DuckFile(path, None), lambda _message, _is_damage: None)

    with (  # noqa: PT012 - the error is met in the middle of a session's work
        ThreadPoolExecutor() as pool,
        pytest.raises(StoreError, match="ask again"),
        session.work("") as cursor,
    ):
        ending = pool.submit(session.end)
        wait([ending], timeout=0.2)  # it has interrupted, if it does so only once
        cursor.execute("SELECT sum(hash(i)) FROM range(3_000_000_000) r(i)").fetchall()

    assert ending.result() is None
    connection.close()


def test_readers_and_writers_outlive_compaction(path: Path) -> None:
    seen: list[int] = []
    with Store(path) as store, ThreadPoolExecutor() as pool:
        store.append({"invocations": calls(2000)}, [], AT)

        def read() -> None:
            for _ in range(20):
                batches = store.batches("SELECT id, request FROM invocations", rows=500)
                seen.append(sum(batch.num_rows for batch in batches))

        def write() -> None:
            for _ in range(5):
                store.append({"invocations": calls(10)}, [], AT)

        work = [pool.submit(task) for task in (read, write, read)]
        store.compact()
        for one in work:
            one.result()
        total = count(store)

    assert total == 2050
    assert min(seen) >= 2000


def test_a_log_that_is_closed_while_it_is_compacted_stays_closed(path: Path) -> None:
    fill(path, in_file=100, in_wal=0)
    store = Store(path)
    batches = store.batches("SELECT id FROM invocations", rows=10)
    next(batches)

    with ThreadPoolExecutor() as pool:
        compacting = pool.submit(store.compact)
        wait([compacting], timeout=0.5)  # it waits for the reader now
        store.close()
        with pytest.raises(StoreError):
            compacting.result()

    with Store(path) as again:
        assert count(again) == 100


def test_somebody_elses_file_is_left_alone(path: Path) -> None:
    path.write_text("a,b\n1,2\n")

    with pytest.raises(StoreError, match="not a valid DuckDB"):
        Store(path)

    assert path.read_text() == "a,b\n1,2\n"
    assert put_aside(path) == []


def test_a_wrong_key_is_said_and_nothing_is_put_aside(path: Path) -> None:
    Store(path, keys=KEYS).close()

    with pytest.raises(StoreError, match="encrypted with another key"):
        Store(path, keys=Keyring.of(b"x" * 32))

    assert put_aside(path) == []


def test_what_a_compaction_that_was_killed_left_behind_is_removed(path: Path) -> None:
    fill(path, in_file=10, in_wal=0)
    left = path.with_name("log.duckdb.compacted")
    left.write_bytes(b"half a copy")

    with Store(path) as store:
        rows = count(store)

    assert rows == 10
    assert not left.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk_is_no_damage_and_heals_by_reopening(tmp_path: Path) -> None:
    with disk(tmp_path / "small", "16m") as folder, Store(folder / "log.duckdb") as store:
        committed, refusal = append_until_refused(store)
        with pytest.raises(StoreBroken, match="No space left"):
            store.checkpoint()
        with pytest.raises(StoreBroken):
            store.rows("SELECT count(*) FROM invocations")
        was_broken = store.broken

        store.reopen()
        upto, rows = store.offsets()["s"], count(store)
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        store.reopen()
        store.append({"invocations": calls(500)}, [Offset("s", upto + 1, 500)], AT)
        store.checkpoint()

        assert "No space left" in str(refusal)
        assert was_broken
        assert upto in (committed, committed + 1)
        assert rows == upto * 500
        assert count(store) == rows + 500
        assert store.take_healed() == ()
        assert put_aside(folder / "log.duckdb") == []


def append_until_refused(store: Store) -> tuple[int, StoreError]:
    """How many batches of 500 rows the store took, and why it took no more."""
    for n in range(200):
        try:
            store.append({"invocations": calls(500)}, [Offset("s", n + 1, 500)], AT)
        except StoreError as error:
            return n, error
    raise AssertionError("the disk never got full")


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, which is soon full."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_file_of_a_newer_duckdb_is_refused_and_left_alone(path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS other (STORAGE_VERSION 'v1.5.0')")
    content = bytearray(path.read_bytes())
    content[12] = 99
    content[:8] = checksum(bytes(content[8:4096]))
    path.write_bytes(content)

    with pytest.raises(StoreError, match="version number 99"):
        Store(path)

    assert put_aside(path) == []
