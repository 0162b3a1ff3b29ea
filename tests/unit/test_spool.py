import asyncio
import errno
import fcntl
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import SpoolError
from gateway.log.cipher import Keyring
from gateway.log.record import Incident, Record, decode, encode
from gateway.log.spool import Durability, SpoolWriter, sealed
from tests.factories import NOW, body, invocation


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of the file at the beginning of each sync."""
    sizes: list[int] = []
    sync = os.fdatasync

    def seen(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", seen)
    return sizes


def records(spool: Path) -> list[Record]:
    segments = sorted(spool.glob("*.jsonl"))
    return [decode(line) for path in segments for line in path.read_bytes().splitlines()]


def wait_until_sealed(segment: Path) -> None:
    """The system wakes us when the writer lets go."""
    with segment.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size``: the last write is cut, the next refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def append_for_ever(writer: SpoolWriter) -> None:
    while True:
        writer.append(invocation())


def refuse(fd: int, *_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_appended_is_on_disk_at_once_and_in_order(spool: Path) -> None:
    written = [invocation() for _ in range(3)]
    writer = SpoolWriter(spool, "w0")

    for record in written:
        writer.append(record)

    assert records(spool) == written
    writer.close()


def test_with_a_key_nothing_of_a_record_can_be_read(spool: Path) -> None:
    keys = Keyring.of(bytes(32))
    record = invocation(request=body("my secret"))
    writer = SpoolWriter(spool, "w0", cipher=keys.spool)

    writer.append(record)

    line = writer.segment.read_bytes()
    assert b"my secret" not in line
    assert decode(line.strip(), keys.spool) == record
    writer.close()


def test_a_segment_is_locked_before_it_can_be_seen(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    lock = fcntl.flock

    def watched(fd: int, operation: int) -> None:
        seen.append(bool(list(spool.glob("*.jsonl"))))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", watched)
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    monkeypatch.undo()

    assert seen == [False]
    assert not sealed(writer.segment)
    writer.close()


def test_closing_seals_the_segment(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())

    writer.close()
    writer.close()

    assert sealed(writer.segment)
    with pytest.raises(SpoolError, match="closed"):
        writer.append(invocation())


def test_a_full_segment_is_followed_by_another_and_sealed(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.spool.SEGMENT_BYTES", 2000)
    written = [invocation() for _ in range(10)]
    writer = SpoolWriter(spool, "w0")

    for record in written:
        writer.append(record)

    *full, last = sorted(spool.glob("*.jsonl"))
    for segment in full:
        wait_until_sealed(segment)
    assert full
    assert all(segment.stat().st_size <= 2000 for segment in full)
    assert not sealed(last)
    assert records(spool) == written
    writer.close()


@pytest.mark.parametrize("durability", list(Durability))
def test_a_segment_that_has_gone_quiet_is_sealed_by_itself(
    spool: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    monkeypatch.setattr("gateway.log.spool.SEGMENT_S", 0.01)
    writer = SpoolWriter(spool, "w0", durability=durability)
    writer.append(invocation())
    first = writer.segment

    wait_until_sealed(first)
    writer.append(invocation())

    assert writer.segment != first
    assert len(records(spool)) == 2
    writer.close()


def test_a_writer_with_nothing_to_write_has_no_segment(spool: Path) -> None:
    SpoolWriter(spool, "w0").close()

    assert list(spool.iterdir()) == []


def test_what_a_writer_left_that_died_making_a_segment_is_swept(spool: Path) -> None:
    spool.mkdir()
    old, young = spool / "w7-old.new", spool / "w7-young.new"
    for unborn in (old, young):
        unborn.touch()
    os.utime(old, (0, 0))

    SpoolWriter(spool, "w0").close()

    assert list(spool.iterdir()) == [young]


def test_many_threads_append_whole_lines(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.log.spool.SEGMENT_BYTES", 1500)
    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = SpoolWriter(spool, "w0", durability=Durability.NONE)
    written = [[invocation() for _ in range(100)] for _ in range(4)]

    def append_all(mine: list[Record]) -> None:
        for record in mine:
            writer.append(record)

    threads = [threading.Thread(target=append_all, args=(mine,)) for mine in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    sys.setswitchinterval(switched)

    wanted = {record.id for mine in written for record in mine}
    assert {record.id for record in records(spool)} == wanted
    assert len(records(spool)) == 400


def test_a_line_the_disk_cuts_short_is_taken_back_and_refused(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    size = writer.segment.stat().st_size

    with room_for(size + 10), pytest.raises(SpoolError, match="No space left on device"):
        writer.append(invocation())

    assert writer.segment.stat().st_size == size
    writer.close()


def test_once_the_disk_has_room_again_writing_goes_on(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    first, refused, last = invocation(), invocation(), invocation()
    writer.append(first)

    with room_for(writer.segment.stat().st_size), pytest.raises(SpoolError, match="too large"):
        writer.append(refused)
    writer.append(last)

    assert records(spool) == [first, last]
    writer.close()


def test_a_torn_line_that_cannot_be_taken_back_is_the_last_of_its_segment(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(spool, "w0")
    first, last = invocation(), invocation()
    writer.append(first)
    torn = writer.segment

    monkeypatch.setattr(os, "ftruncate", refuse)
    with room_for(torn.stat().st_size + 10), pytest.raises(SpoolError, match="Input/output"):
        writer.append(invocation())
    writer.append(last)
    wait_until_sealed(torn)

    whole, rest = torn.read_bytes().split(b"\n")
    assert decode(whole) == first
    assert len(rest) == 10
    assert decode(writer.segment.read_bytes().strip()) == last
    writer.close()


def test_a_spool_at_its_quota_refuses_until_the_learner_has_caught_up(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.space.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("gateway.log.spool.SEGMENT_BYTES", 2000)
    writer = SpoolWriter(spool, "w0", quota=5000)

    with pytest.raises(SpoolError, match="quota of 5000 bytes: is the learner running"):
        append_for_ever(writer)
    before = sum(segment.stat().st_size for segment in spool.glob("*.jsonl"))
    min(spool.glob("*.jsonl")).unlink()
    writer.append(invocation())

    assert before <= 5000
    writer.close()


def test_what_is_written_counts_at_once(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0", quota=5000)

    with pytest.raises(SpoolError, match="quota"):
        append_for_ever(writer)

    assert 4000 < writer.segment.stat().st_size <= 5000
    writer.close()


def test_the_quota_counts_the_segments_of_all_workers(spool: Path) -> None:
    spool.mkdir()
    (spool / "w1-other.jsonl").write_bytes(bytes(5000))
    writer = SpoolWriter(spool, "w0", quota=5000)

    with pytest.raises(SpoolError, match="quota"):
        writer.append(invocation())

    writer.close()


def test_the_free_space_reserve_is_kept_and_the_message_says_what_to_do(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0", reserve=1 << 60)

    with pytest.raises(SpoolError, match=r"1073741824\.0 GB left that stay free: make room"):
        writer.append(invocation())

    assert list(spool.iterdir()) == []
    writer.close()


def test_a_folder_that_cannot_be_a_spool_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SpoolError, match="as spool: Not a directory"):
        SpoolWriter(tmp_path / "file" / "spool", "w0")


def test_a_spool_that_was_removed_is_said(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    spool.rmdir()

    with pytest.raises(SpoolError, match="No such file or directory"):
        writer.append(invocation())

    writer.close()


def test_answers_without_a_record_are_counted_before_the_next_record(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0", now=lambda: NOW)
    record = invocation()

    writer.drop(reason="disk full")
    writer.drop(2, reason="disk full")
    writer.drop(reason="too large")
    writer.append(record)
    writer.append(record)

    full, large, *rest = records(spool)
    assert isinstance(full, Incident)
    assert isinstance(large, Incident)
    assert (full.kind, full.n, full.detail, full.ts) == ("dropped", 3, "disk full", NOW)
    assert (large.kind, large.n, large.detail) == ("dropped", 1, "too large")
    assert rest == [record, record]
    writer.close()


def test_while_records_do_not_fit_drops_are_added_up_not_written(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.space.LOOK_EVERY_S", 0.0)
    spool.mkdir()
    other = spool / "w1-other.jsonl"
    other.write_bytes(bytes(5000))
    record = invocation()
    room = len(encode(record)) - 1  # for an incident, but not for the record
    writer = SpoolWriter(spool, "w0", quota=5000 + room)

    for _ in range(5):
        with pytest.raises(SpoolError):
            writer.append(record)
        writer.drop(reason="quota")
    other.unlink()
    writer.append(record)

    incident, kept = records(spool)
    assert isinstance(incident, Incident)
    assert incident.n == 5
    assert kept == record
    writer.close()


def test_drops_that_no_record_followed_are_written_at_the_end(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.drop(reason="disk full")

    writer.close()

    (incident,) = records(spool)
    assert isinstance(incident, Incident)
    assert incident.n == 1


async def test_with_group_a_record_waits_for_a_sync_that_began_after_it_was_written(
    spool: Path, synced: list[int]
) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)

    for _ in range(3):
        writer.append(invocation())
        await writer.synced()

        assert synced[-1] == writer.segment.stat().st_size
    writer.close()


async def test_whoever_has_nothing_unsynced_does_not_wait(spool: Path) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)

    await writer.synced()
    writer.append(invocation())
    await writer.synced()
    await writer.synced()

    writer.close()


async def test_records_written_during_a_sync_share_the_next_one(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)
    gate = threading.Event()
    syncs: list[int] = []

    def slow(fd: int) -> None:
        gate.wait()
        syncs.append(fd)

    async def record() -> None:
        writer.append(invocation())
        await writer.synced()

    monkeypatch.setattr(os, "fdatasync", slow)
    tasks = [asyncio.create_task(record()) for _ in range(50)]
    asyncio.get_running_loop().call_soon(gate.set)  # after the first step of every task
    await asyncio.gather(*tasks)

    assert 1 <= len(syncs) <= 2
    writer.close()


async def test_a_record_the_disk_refuses_is_not_called_durable_and_a_new_segment_is_begun(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)
    monkeypatch.setattr(os, "fdatasync", refuse)
    writer.append(invocation())
    failed = writer.segment

    with pytest.raises(SpoolError, match="Input/output error"):
        await writer.synced()
    with pytest.raises(SpoolError, match="Input/output error"):
        await writer.synced()
    monkeypatch.undo()
    writer.append(invocation())
    await writer.synced()

    assert writer.segment != failed
    assert sealed(failed)
    assert len(records(spool)) == 2
    writer.close()


async def test_a_failure_nobody_waited_for_is_told_to_who_asks_later(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)
    monkeypatch.setattr(os, "fdatasync", refuse)
    writer.append(invocation())
    wait_until_sealed(writer.segment)

    with pytest.raises(SpoolError):
        await writer.synced()

    writer.close()


async def test_a_caller_who_goes_away_harms_nobody(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)
    gate = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: gate.wait())
    writer.append(invocation())
    gone, stays = (asyncio.create_task(writer.synced()) for _ in range(2))

    asyncio.get_running_loop().call_soon(gone.cancel)
    asyncio.get_running_loop().call_soon(gate.set)
    await stays

    assert gone.cancelled()
    writer.close()


def test_closing_syncs_what_an_interval_had_not(spool: Path, synced: list[int]) -> None:
    writer = SpoolWriter(spool, "w0")
    writer.append(invocation())
    writer.append(invocation())

    writer.close()

    assert synced[-1] == writer.segment.stat().st_size


async def test_an_interval_keeps_nobody_waiting_and_syncs_by_itself(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: reached.set())
    writer = SpoolWriter(spool, "w0", durability=Durability.INTERVAL)
    writer.append(invocation())

    await writer.synced()

    assert await asyncio.to_thread(reached.wait, 60)
    writer.close()


async def test_with_none_nothing_is_ever_synced(spool: Path, synced: list[int]) -> None:
    writer = SpoolWriter(spool, "w0", durability=Durability.NONE)
    writer.append(invocation())

    await writer.synced()
    writer.close()

    assert synced == []


async def test_a_new_segments_name_is_synced_too(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories: list[Path] = []
    sync = os.fsync

    def seen(fd: int) -> None:
        directories.append(Path(f"/proc/self/fd/{fd}").readlink())
        sync(fd)

    monkeypatch.setattr(os, "fsync", seen)
    writer = SpoolWriter(spool, "w0", durability=Durability.GROUP)

    for _ in range(2):
        writer.append(invocation())
        await writer.synced()

    assert directories == [spool]
    writer.close()
