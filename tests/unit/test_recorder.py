import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.api.context import Context
from gateway.api.request import ChatRequest
from gateway.errors import RecordFailed
from gateway.keys import Key
from gateway.log.record import Feedback, Incident, Invocation, decode, new_id
from gateway.log.spool import Durability, SpoolWriter
from gateway.recorder import Exchange, Recorder
from gateway.routing import Target

AT = datetime(2026, 1, 1, tzinfo=UTC)
SSE = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'


def exchange(**fields: object) -> Exchange:
    id_ = new_id()
    context = Context(
        episode_id=id_,
        parent_id=None,
        conversation_id=None,
        trace_id=None,
        span_id=None,
        subject_id=None,
        train_ok=True,
    )
    return Exchange(
        id=id_,
        ts=AT,
        key=Key("key_1", "k", "acme"),
        request=ChatRequest(model="m", messages=[], **fields),  # type: ignore[arg-type]
        body=b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
        target=Target(alias="m", model="base", adapter=None, engine_id="e0", url="http://e0"),
        context=context,
    )


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
def full(tmp_path: Path) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(tmp_path, "w0", quota=0, reserve=0)
    yield writer
    writer.close()


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)


def test_an_exchange_is_recorded_once(spool: SpoolWriter, tmp_path: Path) -> None:
    recorder, one = Recorder(spool), exchange()

    recorder.record(one, status=200, response=b'{"id":"c"}')
    recorder.record_cut(one, status=499)

    (record,) = spooled(tmp_path)
    assert isinstance(record, Invocation)
    assert (record.id, record.status, record.error_type) == (one.id, 200, None)


@pytest.mark.usefixtures("bad_disk")
async def test_an_answer_the_disk_did_not_take_is_not_given(spool: SpoolWriter) -> None:
    recorder, one = Recorder(spool), exchange()
    recorder.record(one, status=200)

    with pytest.raises(RecordFailed):
        await recorder.durable(one)
    with pytest.raises(RecordFailed):
        await recorder.keep(feedback())

    assert "disk" in (recorder.error or "")


@pytest.mark.usefixtures("bad_disk")
async def test_a_best_effort_answer_does_not_hang_on_the_disk(spool: SpoolWriter) -> None:
    recorder, one = Recorder(spool, best_effort=frozenset({"m"})), exchange()
    recorder.record(one, status=200)

    await recorder.durable(one)

    assert recorder.error is not None


def test_a_task_is_best_effort_by_its_name_or_its_alias(full: SpoolWriter, tmp_path: Path) -> None:
    by_alias = Recorder(full, best_effort=frozenset({"m"}))
    by_task = Recorder(full, best_effort=frozenset({"chat"}))

    by_alias.record(exchange(metadata={"task": "other"}), status=200)
    by_task.record(exchange(metadata={"task": "chat"}), status=200)
    with pytest.raises(RecordFailed) as refused:
        by_task.record(exchange(), status=200)

    assert (by_alias.dropped, by_task.dropped) == (1, 1)
    assert "quota" in (by_task.error or "")
    assert str(tmp_path) not in str(refused.value)


def test_the_log_is_told_how_many_answers_it_lacks(tmp_path: Path) -> None:
    too_large = exchange()
    too_large.received(b"x" * (1 << 20))
    spool = SpoolWriter(tmp_path, "w0", quota=1 << 20, reserve=0)
    recorder = Recorder(spool, best_effort=frozenset({"m"}))

    recorder.record(too_large, status=200)
    recorder.record(exchange(), status=200)
    spool.close()

    incident, record = spooled(tmp_path)
    assert isinstance(incident, Incident)
    assert (incident.kind, incident.n) == ("dropped", 1)
    assert isinstance(record, Invocation)
    assert (recorder.dropped, recorder.error) == (1, None)


def test_of_a_cut_stream_without_bodies_the_log_learns_what_had_come(
    spool: SpoolWriter, tmp_path: Path
) -> None:
    recorder, cut, failed = Recorder(spool), exchange(store=False), exchange(store=False)
    cut.received(SSE)
    failed.received(SSE + ERROR)

    recorder.record_cut(cut, status=200)
    recorder.record(failed, status=200)

    by_cut, by_failed = spooled(tmp_path)
    assert isinstance(by_cut, Invocation)
    assert isinstance(by_failed, Invocation)
    assert (by_cut.response_id, by_cut.finish_reasons) == ("c", [""])
    assert (by_cut.error_type, by_failed.error_type) == ("client_disconnect", "engine_error")
    assert by_cut.prompt_hash == by_failed.prompt_hash is not None
    assert (by_cut.sse, bytes(by_cut.request)) == (None, b"null")


def test_only_what_was_answered_is_stored(spool: SpoolWriter, tmp_path: Path) -> None:
    recorder = Recorder(spool)

    recorder.record(exchange(store=True), status=200)
    recorder.record(exchange(store=True), status=503)
    recorder.record(exchange(), status=200)

    stored = [record.stored for record in spooled(tmp_path) if isinstance(record, Invocation)]
    assert stored == [True, False, False]
