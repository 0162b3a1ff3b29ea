import asyncio
import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.context import Context
from gateway.errors import RecordFailed
from gateway.keys import Key
from gateway.log.answer import Usage
from gateway.log.record import Feedback, Incident, Invocation, decode, new_id
from gateway.log.spool import Durability, SpoolWriter
from gateway.recorder import Exchange, Recorder
from gateway.routing import Target
from tests.factories import parsed

AT = datetime(2026, 1, 1, tzinfo=UTC)
SSE = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'


def exchange(**fields: object) -> Exchange:
    id_ = new_id()
    return Exchange(
        id=id_,
        request_id=id_.hex,
        ts=AT,
        key=Key("key_1", "k", "acme"),
        alias="m",
        operation="chat",
        parsed=parsed(model="m", **fields),
        body=b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
        context=Context(id_, None, None, None, None, None, train_ok=True),
        target=Target("m", "base", None, None, "e0", "http://e0"),
        arm="incumbent",
        propensity=1.0,
        started=0.0,
    )


class Told:
    """What became of records, in their order."""

    def __init__(self) -> None:
        self.records: list[Invocation] = []
        self.refusals: list[RecordFailed | None] = []

    def __call__(self, record: Invocation, refused: RecordFailed | None) -> None:
        self.records.append(record)
        self.refusals.append(refused)


def record(recorder: Recorder, one: Exchange, status: int = 200, **more: Any) -> Told:
    """Have it recorded at once."""
    told = Told()
    recorder.record(one, told, status=status, alone=True, **more)
    return told


def feedback() -> Feedback:
    return Feedback(
        id=new_id(), ts=AT, tenant="acme", target="episode", target_id=new_id(), name="stars"
    )


def spooled(directory: Path) -> list[object]:
    lines = b"".join(path.read_bytes() for path in sorted(directory.glob("*.jsonl"))).splitlines()
    return [decode(line) for line in lines]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path, "w0", durability=Durability.GROUP, reserve=0)
    yield writer
    writer.close()


@pytest.fixture
def flowing(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path, "w0", durability=Durability.NONE, reserve=0)
    yield writer
    writer.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path, "w0", quota=0, reserve=0)
    yield writer
    writer.close()


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)


def test_a_record_names_who_called_and_what_it_took(flowing: SpoolWriter, tmp_path: Path) -> None:
    one = exchange()
    one.usage, one.cost = Usage(prompt_tokens=7, completion_tokens=3), 0.5

    record(Recorder(flowing), one, response=b'{"id":"c"}')

    (kept,) = spooled(tmp_path)
    assert isinstance(kept, Invocation)
    assert (kept.id, kept.status, kept.error_type, kept.key_id) == (one.id, 200, None, "key_1")
    assert (kept.input_tokens, kept.output_tokens, kept.cost) == (7, 3, 0.5)


async def test_what_becomes_ready_together_is_written_together_and_then_goes_on(
    flowing: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, told, writes = Recorder(flowing), Told(), []
    write = os.write

    def seen(fd: int, data: bytes) -> int:
        writes.append(len(told.records))
        return write(fd, data)

    monkeypatch.setattr(os, "write", seen)
    for _ in range(3):
        recorder.record(exchange(), told, status=200)
    before = list(told.records)
    await asyncio.sleep(0)

    assert (before, writes) == ([], [0])
    assert told.records == spooled(tmp_path)
    assert told.refusals == [None] * 3


@pytest.mark.usefixtures("bad_disk")
async def test_an_answer_the_disk_did_not_take_is_not_given(spool: SpoolWriter) -> None:
    recorder = Recorder(spool)

    told = record(recorder, exchange())
    await recorder.drain()
    with pytest.raises(RecordFailed):
        await recorder.keep(feedback())

    assert isinstance(told.refusals[0], RecordFailed)
    assert "disk" in (recorder.error or "")


@pytest.mark.usefixtures("bad_disk")
async def test_a_best_effort_answer_does_not_hang_on_the_disk(spool: SpoolWriter) -> None:
    recorder = Recorder(spool, best_effort=frozenset({"m"}))

    told = record(recorder, exchange())
    await recorder.drain()

    assert told.refusals == [None]
    assert recorder.error is not None


def test_a_task_is_best_effort_by_its_name_or_its_alias(full: SpoolWriter, tmp_path: Path) -> None:
    by_alias = Recorder(full, best_effort=frozenset({"m"}))
    by_task = Recorder(full, best_effort=frozenset({"chat"}))

    named = record(by_alias, exchange(metadata={"task": "other"}))
    tasked = record(by_task, exchange(metadata={"task": "chat"}))
    refused = record(by_task, exchange())

    assert named.refusals == tasked.refusals == [None]
    assert (by_alias.dropped, by_task.dropped) == (1, 1)
    assert "quota" in (by_task.error or "")
    assert isinstance(refused.refusals[0], RecordFailed)
    assert str(tmp_path) not in str(refused.refusals[0])


def test_the_log_is_told_how_many_answers_it_lacks(tmp_path: Path) -> None:
    too_large = exchange()
    too_large.received(b"x" * (1 << 20))
    spool = SpoolWriter(tmp_path, "w0", quota=1 << 20, reserve=0)
    recorder = Recorder(spool, best_effort=frozenset({"m"}))

    record(recorder, too_large)
    record(recorder, exchange())
    spool.close()

    incident, kept = spooled(tmp_path)
    assert isinstance(incident, Incident)
    assert (incident.kind, incident.n) == ("dropped", 1)
    assert isinstance(kept, Invocation)
    assert (recorder.dropped, recorder.error) == (1, None)


async def test_one_record_too_large_does_not_keep_its_neighbours_out(tmp_path: Path) -> None:
    too_large, fits, told = exchange(), exchange(), Told()
    too_large.received(b"x" * (1 << 20))
    spool = SpoolWriter(tmp_path, "w0", quota=1 << 20, reserve=0)
    recorder = Recorder(spool)

    for one in (too_large, fits):
        recorder.record(one, told, status=200)
    recorder.flush()
    spool.close()

    assert [type(refused) for refused in told.refusals] == [RecordFailed, type(None)]
    assert spooled(tmp_path) == [told.records[1]]


def test_a_cut_call_is_never_refused_but_counted(full: SpoolWriter) -> None:
    recorder = Recorder(full)

    told = record(recorder, exchange(), 499, cut=True)

    assert (told.refusals, recorder.dropped) == ([None], 1)


def test_of_a_cut_stream_without_bodies_the_log_learns_what_had_come(
    flowing: SpoolWriter, tmp_path: Path
) -> None:
    recorder, cut, failed = Recorder(flowing), exchange(store=False), exchange(store=False)
    cut.received(SSE)
    failed.received(SSE + ERROR)

    record(recorder, cut, error_type="client_disconnect", cut=True)
    record(recorder, failed)

    by_cut, by_failed = spooled(tmp_path)
    assert isinstance(by_cut, Invocation)
    assert isinstance(by_failed, Invocation)
    assert (by_cut.response_id, by_cut.finish_reasons) == ("c", [""])
    assert (by_cut.error_type, by_failed.error_type) == ("client_disconnect", "engine_error")
    assert by_cut.prompt_hash == by_failed.prompt_hash is not None
    assert (by_cut.sse, bytes(by_cut.request)) == (None, b"null")


def test_what_the_gateway_metered_stands_whatever_the_last_event_of_a_cut_stream_says(
    flowing: SpoolWriter, tmp_path: Path
) -> None:
    one = exchange(store=False)
    one.usage = Usage(prompt_tokens=9, completion_tokens=7)
    one.received(b'data: {"choices":[{"index":1}],"usage":{"completion_tokens":3}}\n\n')

    record(Recorder(flowing), one, error_type="client_disconnect", cut=True)

    (kept,) = spooled(tmp_path)
    assert isinstance(kept, Invocation)
    assert (kept.input_tokens, kept.output_tokens) == (9, 7)


def test_only_what_was_answered_is_stored(flowing: SpoolWriter, tmp_path: Path) -> None:
    recorder = Recorder(flowing)

    record(recorder, exchange(store=True))
    record(recorder, exchange(store=True), 503)
    record(recorder, exchange())

    stored = [kept.stored for kept in spooled(tmp_path) if isinstance(kept, Invocation)]
    assert stored == [True, False, False]
