import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.errors import StoreBroken, StoreError, StoreFull
from gateway.log import done, erasure, ingest, rows
from gateway.log.cipher import Cipher
from gateway.log.cost import Price
from gateway.log.erasure import BARE, WHOLE
from gateway.log.ingest import Ingester
from gateway.log.record import (
    Edit,
    Erasure,
    Incident,
    Invocation,
    Record,
    Verdict,
    decode,
    encode,
    new_id,
)
from gateway.log.segment import sealed
from gateway.log.spool import SpoolWriter
from gateway.log.store import Offset, Store, Transaction
from tests.factories import NOW, body, demonstration, invocation

CIPHER = Cipher(bytes(32))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def ingester(store: Store, spool: Path, **options: Any) -> Ingester:
    return Ingester(store, spool, **({"now": lambda: NOW} | options))


def drain(ingester: Ingester) -> int:
    return sum(iter(ingester.run_once, 0))


def dead(spool: Path, *pieces: Record | bytes, name: str = "dead") -> Path:
    """A segment whose writer is gone."""
    segment = spool / f"{name}-{uuid4()}.jsonl"
    segment.write_bytes(b"".join(p if isinstance(p, bytes) else encode(p) for p in pieces))
    return segment


@contextmanager
def alive(segment: Path) -> Iterator[None]:
    """Its writer holds it."""
    with segment.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def count(store: Store, table: str = "invocations") -> int:
    return int(store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def ids(store: Store) -> list[str]:
    return [row["id"] for row in store.rows("SELECT id::VARCHAR AS id FROM invocations")]


def incidents(store: Store) -> list[dict[str, Any]]:
    return store.rows("SELECT kind, n, segment, at_byte, detail FROM incidents ORDER BY at_byte")


def quarantine(spool: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (spool / "quarantine").iterdir()}


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


def test_a_segment_is_read_while_it_grows_and_kept_once_its_writer_is_gone(
    store: Store, spool: Path
) -> None:
    segment = dead(spool, invocation())
    ingest = ingester(store, spool)
    with alive(segment):
        drain(ingest)
        assert segment.exists()
        assert not sealed(segment)
    with segment.open("ab") as file:
        file.write(encode(invocation()))
    content = segment.read_bytes()

    drain(ingest)

    assert count(store) == 2
    assert not segment.exists()
    (kept,) = done.kept(spool)
    assert (kept.segment, kept.size) == (segment.name, len(content))
    with kept.open() as file:
        assert file.read() == content


def test_a_segment_that_is_empty_leaves_nothing(store: Store, spool: Path) -> None:
    segment = dead(spool)

    drain(ingester(store, spool))

    assert not segment.exists()
    assert not list(done.kept(spool))


def test_half_a_line_is_left_while_its_writer_lives(store: Store, spool: Path) -> None:
    line = encode(invocation())
    segment = dead(spool, invocation(), line[:20])
    ingest = ingester(store, spool)
    with alive(segment):
        drain(ingest)
        half = count(store)
        with segment.open("ab") as file:
            file.write(line[20:])
        drain(ingest)

    assert (half, count(store)) == (1, 2)
    assert not incidents(store)


def test_the_torn_end_that_a_dead_writer_left_is_kept_and_named(store: Store, spool: Path) -> None:
    line = encode(invocation())
    segment = dead(spool, line, line[:20])

    drain(ingester(store, spool))

    assert count(store) == 1
    (incident,) = incidents(store)
    assert (incident["kind"], incident["segment"], incident["at_byte"]) == (
        "quarantined",
        segment.name,
        len(line),
    )
    assert "not acknowledged" in incident["detail"]
    assert quarantine(spool) == {f"{segment.name}@{len(line)}": line[:20] + b"\n"}
    assert [kept.segment for kept in done.kept(spool)] == [segment.name]


def test_damaged_lines_are_kept_and_named_and_the_rest_is_taken(store: Store, spool: Path) -> None:
    good = encode(invocation())
    segment = dead(spool, good, b"{half\n", b"\xff\x00\n", invocation(), b"[]\n")

    drain(ingester(store, spool))

    assert count(store) == 2
    first, second = incidents(store)
    assert (first["n"], first["at_byte"]) == (2, len(good))
    assert second["n"] == 1
    assert quarantine(spool)[f"{segment.name}@{len(good)}"] == b"{half\n\xff\x00\n"


def test_a_batch_that_failed_is_repeated_without_doubling_its_quarantine(
    store: Store, spool: Path
) -> None:
    dead(spool, invocation(), b"{half\n")
    ingest = ingester(store, spool)
    store.close()
    for _ in range(2):
        with pytest.raises(StoreError):
            ingest.run_once()
    before = quarantine(spool)

    store.reopen()
    drain(ingest)

    assert (count(store), count(store, "incidents")) == (1, 1)
    assert quarantine(spool) == before


def test_a_closed_store_is_opened_again_after_the_second_failure(store: Store, spool: Path) -> None:
    ingest = ingester(store, spool)
    dead(spool, invocation())
    store.close()
    for _ in range(2):
        with pytest.raises(StoreError):
            ingest.run_once()

    drain(ingest)

    assert count(store) == 1


def test_lines_of_spaces_are_skipped(store: Store, spool: Path) -> None:
    dead(spool, b" " * 50 + b"\n", invocation(), b"\n")

    drain(ingester(store, spool))

    assert count(store) == 1
    assert not incidents(store)
    assert not quarantine(spool)


def test_what_no_column_takes_goes_to_quarantine_and_its_neighbours_do_not(
    store: Store, spool: Path
) -> None:
    good = [invocation() for _ in range(9)]
    absurd = [invocation(status=99_999), invocation(v=1 << 40), invocation(input_tokens=1 << 70)]
    dead(spool, *good[:4], absurd[0], *good[4:7], *absurd[1:], *good[7:])

    drain(ingester(store, spool))

    assert sorted(ids(store)) == sorted(str(one.id) for one in good)
    assert sum(row["n"] for row in incidents(store)) == 3
    assert b"".join(quarantine(spool).values()).count(b"\n") == 3


def test_what_duckdb_refuses_goes_to_quarantine(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No record is known that Arrow takes and DuckDB refuses; a stricter column stands in for one.
    with store.transaction() as transaction:
        transaction.execute("ALTER TABLE invocations ALTER COLUMN task SET NOT NULL")
        transaction.execute("ALTER TABLE invocations ALTER COLUMN task TYPE INTEGER")
    good = [invocation(task="1") for _ in range(5)]
    dead(spool, *good[:3], invocation(task="no number"), *good[3:])

    drain(ingester(store, spool))

    assert sorted(ids(store)) == sorted(str(one.id) for one in good)
    (incident,) = incidents(store)
    assert "ConversionException" in incident["detail"]
    assert "no number" not in incident["detail"]


def test_a_record_that_spoils_its_own_row_spoils_no_other(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, good = invocation(), invocation()
    made = rows.invocation

    def fails(record: Invocation, *args: Any, **options: Any) -> rows.Row:
        if record.id == poison.id:
            raise KeyError("a mistake of ours")
        return made(record, *args, **options)

    monkeypatch.setattr(rows, "invocation", fails)
    dead(spool, poison, good)

    drain(ingester(store, spool))

    assert ids(store) == [str(good.id)]
    assert "a mistake of ours" in incidents(store)[0]["detail"]


class CommitsAndBreaks(Store):
    """As DuckDB on a full disk: the commit is durable, its checkpoint fails, and all is over."""

    left = 1

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as transaction:
            yield transaction
        if self.left:
            self.left -= 1
            self._broken = True
            raise StoreBroken("the commit succeeded, the checkpoint failed")


def test_a_commit_that_broke_the_store_afterwards_is_not_repeated(
    tmp_path: Path, spool: Path
) -> None:
    dead(spool, invocation(), b"{half\n")
    with CommitsAndBreaks(tmp_path / "log.duckdb") as store:
        ingest = ingester(store, spool)
        with pytest.raises(StoreBroken):
            ingest.run_once()

        drain(ingest)

        assert (count(store), count(store, "incidents")) == (1, 1)
        assert not store.broken


def test_a_log_that_was_lost_is_filled_again_from_what_is_kept(tmp_path: Path, spool: Path) -> None:
    asked = [invocation() for _ in range(3)]
    edit = Edit(id=new_id(), ts=NOW, tenant="default", invocation_id=asked[0].id, tags={"a": "b"})
    dead(spool, *asked, demonstration(asked[0].id), edit, b"{half\n")
    tables = ("invocations", "feedback", "edits", "incidents")
    with Store(tmp_path / "first.duckdb") as store:
        drain(ingester(store, spool))
        before = [count(store, table) for table in tables]

    with Store(tmp_path / "second.duckdb") as store:
        again = ingester(store, spool)
        drain(again)

        assert [count(store, table) for table in tables] == before == [3, 1, 1, 1]
        assert drain(ingester(store, spool)) == 0


def test_a_replay_adds_only_what_is_missing(store: Store, spool: Path) -> None:
    asked = [invocation() for _ in range(5)]
    dead(spool, *asked, demonstration(asked[0].id), b"{half\n")
    drain(ingester(store, spool))
    with store.transaction() as transaction:
        transaction.execute("DELETE FROM spool_segments")
        transaction.execute("DELETE FROM invocations WHERE id = ?", [str(asked[2].id)])

    drain(ingester(store, spool))

    assert sorted(ids(store)) == sorted(str(one.id) for one in asked)
    assert (count(store, "feedback"), count(store, "incidents")) == (1, 1)


def test_a_healed_log_says_so_and_looks_at_everything_again(store: Store, spool: Path) -> None:
    kept, living = invocation(), invocation()
    dead(spool, kept)
    with alive(dead(spool, living)):
        ingest = ingester(store, spool)
        drain(ingest)
        with store.transaction() as transaction:
            transaction.execute("DELETE FROM invocations")
        store._healed.append("log.duckdb.wal was put aside")

        drain(ingest)

    assert sorted(ids(store)) == sorted([str(kept.id), str(living.id)])
    (incident,) = incidents(store)
    assert (incident["kind"], incident["detail"]) == ("healed", "log.duckdb.wal was put aside")


def test_a_replay_brings_bodies_back_that_healing_lost(store: Store, spool: Path) -> None:
    asked = [invocation() for _ in range(3)]
    dead(spool, *asked)
    drain(ingester(store, spool))
    with store.transaction() as transaction:
        erasure.replace(transaction, "invocations", BARE, f"{WHOLE} AND id = ?", [str(asked[1].id)])
        transaction.execute("DELETE FROM spool_segments")

    drain(ingester(store, spool))

    found = store.rows("SELECT id::VARCHAR AS id, request FROM invocations ORDER BY id")
    assert [(row["id"], row["request"]) for row in found] == [
        (str(one.id), bytes(one.request).decode()) for one in asked
    ]


def test_a_kept_segment_that_is_damaged_is_named_once(tmp_path: Path, spool: Path) -> None:
    dead(spool, invocation())
    with Store(tmp_path / "first.duckdb") as store:
        drain(ingester(store, spool))
    (kept,) = done.kept(spool)
    kept.path.write_bytes(b"no zstd at all")

    with Store(tmp_path / "second.duckdb") as store:
        drain(ingester(store, spool))
        drain(ingester(store, spool))

        (incident,) = incidents(store)
        assert incident["segment"] == kept.segment


def test_an_import_repeated_adds_nothing(store: Store, spool: Path) -> None:
    imported = [invocation(origin="bedrock", id=uuid4()) for _ in range(4)]
    dead(spool, *imported[:3], imported[0])
    drain(ingester(store, spool))
    dead(spool, *imported, invocation())

    drain(ingester(store, spool))

    assert len(ids(store)) == 5
    assert {str(one.id) for one in imported} <= set(ids(store))


def test_edits_and_incidents_of_the_spool_are_in_the_log(store: Store, spool: Path) -> None:
    edit = Edit(id=new_id(), ts=NOW, tenant="t", invocation_id=new_id(), tags={"a": "b"})
    dropped = Incident(id=new_id(), ts=NOW, kind="dropped", n=3, detail="the disk is full")
    dead(spool, edit, dropped)

    drain(ingester(store, spool))

    (row,) = store.rows("SELECT tenant, tags, invocation_id::VARCHAR AS id FROM edits")
    assert (row["tenant"], row["tags"], row["id"]) == ("t", [("a", "b")], str(edit.invocation_id))
    assert [(row["kind"], row["n"]) for row in incidents(store)] == [("dropped", 3)]


def test_an_erasure_takes_what_is_there_and_what_comes_late(store: Store, spool: Path) -> None:
    theirs = [invocation(subject_id="s1") for _ in range(3)]
    others = invocation(subject_id="s2")
    forget = Erasure(id=new_id(), ts=NOW, tenant="default", subject_id="s1")
    dead(spool, theirs[0], others, name="a")
    ingest = ingester(store, spool)
    drain(ingest)
    dead(spool, forget, theirs[1], name="b")
    drain(ingest)
    dead(spool, theirs[2], demonstration(theirs[0].id), name="c")

    drain(ingest)
    drain(ingester(store, spool))

    assert ids(store) == [str(others.id)]
    assert count(store, "feedback") == 0
    assert count(store, "erasures") == 1


def test_bodies_that_were_erased_do_not_come_back(store: Store, spool: Path) -> None:
    call = invocation(subject_id="s1", stored=True)
    forget = Erasure(id=new_id(), ts=NOW, tenant="default", scope="bodies", subject_id="s1")
    dead(spool, forget, name="a")
    ingest = ingester(store, spool)
    drain(ingest)
    dead(spool, call, name="b")

    drain(ingest)

    (row,) = store.rows("SELECT request, response, stored, train_ok, input_tokens FROM invocations")
    assert row == {
        "request": None,
        "response": None,
        "stored": False,
        "train_ok": False,
        "input_tokens": 3,
    }


def test_what_was_kept_for_a_day_goes_after_a_checkpoint(store: Store, spool: Path) -> None:
    old, young = dead(spool, invocation()), dead(spool, invocation())
    ingest = ingester(store, spool)
    drain(ingest)
    for kept in done.kept(spool):
        at = (NOW - timedelta(hours=25 if kept.segment == old.name else 23)).timestamp()
        os.utime(kept.path, (at, at))

    ingest.prune()

    assert [kept.segment for kept in done.kept(spool)] == [young.name]
    assert count(store) == 2


def test_what_is_to_be_read_again_is_not_thrown_away(store: Store, spool: Path) -> None:
    segment = dead(spool, invocation())
    (spool / "done").mkdir()
    done.keep(segment)
    (kept,) = done.kept(spool)
    os.utime(kept.path, (0, 0))
    ingest = ingester(store, spool)

    ingest.prune()
    still = list(done.kept(spool))
    drain(ingest)
    ingest.prune()

    assert still == [kept]
    assert not list(done.kept(spool))
    assert count(store) == 1


def test_an_offset_is_forgotten_after_a_month_unless_its_segment_is_here(
    store: Store, spool: Path
) -> None:
    segment = dead(spool, invocation())
    with alive(segment):
        ingest = ingester(store, spool)
        drain(ingest)
        store.append({}, [Offset("gone", 5, 1)], NOW.replace(tzinfo=None))
        store.append({}, [Offset("recent", 5, 1)], (NOW + timedelta(days=2)).replace(tzinfo=None))
        later = ingester(store, spool, now=lambda: NOW + timedelta(days=31))

        later.prune()

    assert set(store.offsets()) == {segment.name, "recent"}


def test_of_a_segment_only_the_last_offset_stays(store: Store, spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    ingest = ingester(store, spool)
    for _ in range(3):
        writer.append(invocation())
        ingest.run_once()
    offsets = store.offsets()

    ingest.prune()
    writer.append(invocation())
    writer.close()
    drain(ingest)
    ingest.prune()

    upto = writer.segment.name, max(store.offsets().values())
    assert offsets[writer.segment.name] < upto[1]
    assert store.rows("SELECT segment, upto FROM spool_segments") == [
        {"segment": upto[0], "upto": upto[1]}
    ]
    assert count(store) == 4


def test_what_a_writer_left_that_died_at_birth_is_removed(store: Store, spool: Path) -> None:
    unborn = spool / f"w0-{uuid4()}.new"
    unborn.touch()
    os.utime(unborn, (0, 0))

    ingester(store, spool)

    assert not unborn.exists()


def test_below_the_reserve_the_spool_waits_until_there_is_room(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead(spool, invocation())
    ingest = ingester(store, spool, reserve=1000)
    monkeypatch.setattr(store, "free", lambda: 499)
    with pytest.raises(StoreFull, match="make room"):
        ingest.run_once()

    monkeypatch.undo()
    drain(ingest)

    assert count(store) == 1


def test_kept_segments_go_before_a_call_is_refused(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = [dead(spool, invocation()) for _ in range(4)]
    taker = ingester(store, spool, reserve=1000, now=lambda: datetime.fromtimestamp(0, UTC))
    drain(taker)
    for number, kept in enumerate(done.kept(spool)):
        os.utime(kept.path, (number, number))
    room = iter([900, 950, 1000])
    enough = threading.Event()

    def usage(folder: Path) -> Any:
        free = next(room, None)
        if free is None:
            enough.set()
        return SimpleNamespace(free=free or 5000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(store, "free", lambda: 5000)
    stop = threading.Event()
    thread = threading.Thread(target=taker.run, args=(stop,), kwargs={"every_s": 0.001})
    thread.start()
    enough.wait(30)
    stop.set()
    thread.join(30)

    assert [kept.segment for kept in done.kept(spool)] == sorted(
        segment.name for segment in segments
    )[2:]
    assert count(store) == 4


def test_trouble_is_told_once_and_so_is_its_end(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.log.ingest")
    ingest = ingester(store, spool, reserve=1000)
    looked, seen = threading.Event(), []

    def free() -> int:
        seen.append(ingest.trouble)
        if len(seen) > 3:
            looked.set()
            return 2000
        return 10

    monkeypatch.setattr(store, "free", free)
    dead(spool, invocation())
    stop = threading.Event()
    thread = threading.Thread(target=ingest.run, args=(stop,), kwargs={"every_s": 0.001})
    thread.start()
    looked.wait(30)
    stop.set()
    thread.join(30)

    assert seen[0] is None
    assert all(trouble and "make room" in trouble for trouble in seen[1:4])
    assert count(store) == 1
    said = [record.levelname for record in caplog.records]
    assert said.count("ERROR") == 1


def test_an_encrypted_spool_is_not_quarantined_for_want_of_a_key(store: Store, spool: Path) -> None:
    record = invocation()
    dead(spool, encode(record, CIPHER))
    with pytest.raises(StoreError, match="RATCHET_ENCRYPTION_KEY"):
        ingester(store, spool).run_once()

    drain(ingester(store, spool, cipher=CIPHER))

    assert ids(store) == [str(record.id)]


def test_a_sealed_line_that_was_damaged_is_named(store: Store, spool: Path) -> None:
    line = encode(invocation(), CIPHER)
    damaged = line[:40] + (b"A" if line[40:41] != b"A" else b"B") + line[41:]
    dead(spool, damaged, encode(invocation(), CIPHER))

    drain(ingester(store, spool, cipher=CIPHER))

    assert count(store) == 1
    assert "another key" in incidents(store)[0]["detail"]


def test_a_line_longer_than_what_is_read_at_once_is_taken_whole(store: Store, spool: Path) -> None:
    long = invocation(request=body("x" * (9 << 20)))
    dead(spool, invocation(), long, invocation())

    drain(ingester(store, spool))

    assert count(store) == 3
    (row,) = store.rows("SELECT length(request) AS n FROM invocations ORDER BY n DESC LIMIT 1")
    assert row["n"] == len(bytes(long.request))


def test_a_line_without_an_end_is_set_aside_piece_by_piece(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.lines.READ_BYTES", 1000)
    monkeypatch.setattr("gateway.log.lines.LINE_BYTES", 4000)
    segment = dead(spool, b"x" * 10_000 + b"\n", invocation())

    drain(ingester(store, spool))

    assert count(store) == 1
    pieces = quarantine(spool)
    assert sum(piece.count(b"x") for piece in pieces.values()) == 10_000
    assert f"{segment.name}@0" in pieces


def test_a_backlog_is_taken_in_from_the_oldest_segment_on(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.lines.READ_BYTES", 600)
    monkeypatch.setattr(ingest, "READ_BYTES", 600)
    monkeypatch.setattr(ingest, "PASS_BYTES", 600)
    calls = [invocation() for _ in range(6)]
    for worker, of in (("b", calls[:3]), ("a", calls[3:])):
        writer = SpoolWriter(spool, worker)
        for call in of:
            writer.append(call)
        writer.close()

    drain(ingester(store, spool))

    rows = store.rows("SELECT id::VARCHAR AS id FROM invocations ORDER BY rowid")
    assert [row["id"] for row in rows] == [str(call.id) for call in calls]


def test_segments_that_only_have_to_be_retired_are_work_left(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PASS_BYTES", 3 * ingest.RETIRING_COSTS)
    monkeypatch.setattr(ingest, "READ_BYTES", ingest.RETIRING_COSTS)
    for _ in range(20):
        dead(spool)
    dead(spool, invocation(), name="last")

    drain(ingester(store, spool))

    assert count(store) == 1
    assert not list(spool.glob("*.jsonl"))


def test_a_segment_that_cannot_be_read_does_not_stop_the_others(store: Store, spool: Path) -> None:
    (spool / "a-folder.jsonl").mkdir()
    dead(spool, invocation())
    taker = ingester(store, spool)
    stop = threading.Event()

    drain(taker)
    thread = threading.Thread(target=taker.run, args=(stop,), kwargs={"every_s": 0.001})
    thread.start()
    while taker.trouble is None and thread.is_alive():
        pass
    stop.set()
    thread.join(30)

    assert count(store) == 1
    assert taker.trouble is not None
    assert "a-folder.jsonl" in taker.trouble


def test_prices_make_the_cost(store: Store, spool: Path) -> None:
    dead(spool, invocation())

    drain(ingester(store, spool, prices={"helpdesk": Price(input=1, output=10)}))

    (row,) = store.rows("SELECT cost FROM invocations")
    assert row["cost"] == pytest.approx((3 * 1 + 2 * 10) / 1_000_000)


def test_nothing_is_taken_while_it_is_paused(store: Store, spool: Path) -> None:
    dead(spool, invocation())
    taker = ingester(store, spool)
    began = threading.Event()

    def take() -> None:
        began.set()
        taker.run_once()

    with taker.paused():
        thread = threading.Thread(target=take)
        thread.start()
        began.wait(30)
        while_paused = count(store)
    thread.join(30)

    assert (while_paused, count(store)) == (0, 1)


def test_times_of_other_zones_are_stored_in_utc(store: Store, spool: Path) -> None:
    east = timezone(timedelta(hours=5))
    dead(spool, invocation(ts=datetime(2026, 9, 1, 19, 0, tzinfo=east)))

    drain(ingester(store, spool))

    assert store.rows("SELECT ts FROM invocations")[0]["ts"] == datetime(2026, 9, 1, 14, 0)  # noqa: DTZ001


def test_a_segment_is_locked_before_it_can_be_seen(
    store: Store, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = ingester(store, spool)
    lock = fcntl.flock

    def polled(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            taker.run_once()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", polled)
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    monkeypatch.undo()
    writer.close()
    taker.run_once()

    assert count(store) == 1


def test_what_is_sent_again_with_its_id_is_in_the_log_once_as_it_came_first(
    store: Store, spool: Path
) -> None:
    call = invocation()
    said = demonstration(call.id, order="1")
    other = replace(demonstration(call.id, order="2"), id=said.id)
    dead(spool, call, said, other)
    drain(ingester(store, spool))

    dead(spool, other)
    drain(ingester(store, spool))

    found = store.rows("SELECT value FROM feedback")
    assert ["1" in one["value"] for one in found] == [True]


def test_an_erasure_sent_again_reaches_no_further_than_the_first(store: Store, spool: Path) -> None:
    def call(seconds: int) -> Invocation:
        return invocation(subject_id="ann", ts=NOW + timedelta(seconds=seconds))

    first = Erasure(id=new_id(), ts=NOW, tenant="default", subject_id="ann")
    again = replace(first, ts=NOW + timedelta(seconds=10))
    kept = [call(5), call(8)]
    dead(spool, call(0), kept[0], first, again)
    drain(ingester(store, spool))

    dead(spool, kept[1], again)
    drain(ingester(store, spool))

    assert ids(store) == [str(one.id) for one in kept]
    assert count(store, "erasures") == 1
    steps = store.rows("SELECT sum(invocations)::BIGINT AS n FROM erasure_steps")
    assert steps == [{"n": 1}]


def test_what_guards_scored_is_feedback_on_the_call_however_often_it_is_read(
    store: Store, spool: Path
) -> None:
    verdicts = [
        Verdict(guard="tone", stage="before", action="allow", score=0.25),
        Verdict(guard="tone", stage="after", action="flag", score=0.75, reason="curt"),
        Verdict(guard="cards", stage="after", action="redact", reason="a number"),
    ]
    call = invocation(verdicts=verdicts, key_id="key_1")
    for _ in range(2):
        dead(spool, call)
        drain(ingester(store, spool))

    said = store.rows(
        "SELECT name, source, evaluator, score_value, explanation FROM feedback_current "
        "ORDER BY score_value"
    )
    (row,) = store.rows("SELECT key_id, verdicts FROM invocations")
    assert [tuple(one.values()) for one in said] == [
        ("tone", "guard", "tone:before", 0.25, None),
        ("tone", "guard", "tone:after", 0.75, "curt"),
    ]
    assert row["key_id"] == "key_1"
    assert msgspec.json.decode(row["verdicts"], type=list[Verdict]) == verdicts


def test_of_a_call_whose_bodies_were_erased_no_guards_reason_stays(
    store: Store, spool: Path
) -> None:
    reason = "it says 4111 1111 1111 1111"
    scored = Verdict(guard="cards", stage="before", action="flag", score=1.0, reason=reason)
    here, late = (invocation(subject_id="ann", verdicts=[scored]) for _ in range(2))
    erased = Erasure(id=new_id(), ts=NOW, tenant="default", scope="bodies", subject_id="ann")
    dead(spool, here)
    drain(ingester(store, spool))

    dead(spool, erased)
    drain(ingester(store, spool))
    dead(spool, late)
    drain(ingester(store, spool))

    assert store.rows("SELECT count(*) AS n FROM invocations WHERE verdicts IS NOT NULL") == [
        {"n": 0}
    ]
    said = store.rows("SELECT score_value, explanation FROM feedback")
    assert said == [{"score_value": 1.0, "explanation": None}] * 2


_whole = st.none()
_bad = st.binary(max_size=60)
_torn = st.integers(1, 300)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(_whole, _bad, _torn), max_size=8), cut=st.integers(0, 2000))
def test_whatever_a_segment_holds_is_in_the_log_once_or_named(
    store: Store, spool: Path, pieces: list[bytes | int | None], cut: int
) -> None:
    written = (one if isinstance(one, bytes) else encode(invocation())[:one] for one in pieces)
    content = b"".join(written)[: max(cut, 400)]
    readable = [line for line in content.split(b"\n")[:-1] if _is_whole(line)]
    segment = dead(spool, content)
    before, damaged = count(store), _named(store, segment)

    drain(ingester(store, spool))
    drain(ingester(store, spool))

    lines = content.split(b"\n")
    unreadable = [line for line in lines if line.strip() and line not in readable]
    if lines[-1] and not lines[-1].strip():
        unreadable.append(lines[-1])
    assert count(store) - before == len(readable)
    assert _named(store, segment) - damaged == len(unreadable)
    kept = b"".join(v for k, v in quarantine(spool).items() if k.startswith(segment.name))
    assert sorted(kept.split(b"\n")[:-1]) == sorted(unreadable)
    assert not segment.exists()


def _is_whole(line: bytes) -> bool:
    try:
        decode(line)
    except (ValueError, RecursionError):
        return False
    return True


def _named(store: Store, segment: Path) -> int:
    rows = store.rows("SELECT sum(n) AS n FROM incidents WHERE segment = ?", [segment.name])
    return int(rows[0]["n"] or 0)
