"""Somebody is forgotten: in every file under ``data``, and nobody else is."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.errors import RateLimited
from gateway.log import rows
from gateway.log.cipher import KEY, Cipher, Keyring
from gateway.log.done import kept
from gateway.log.filter import Filter
from gateway.log.ingest import Ingester
from gateway.log.record import Erasure, Feedback, Invocation, decode, encode, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from gateway.log.subject import SubjectKey
from learner.api.owner import Owner
from learner.dataset.build import Built, build, record_lineage
from learner.dataset.snapshot import read
from learner.erasure import Erasures, Whom
from learner.jobs import Phase, Turn, TurnState, TurnStore
from learner.sections import RetentionSection
from learner.upkeep import Upkeep
from serving.artifact import Artifact
from serving.database import open_database
from serving.registry import Registry
from tests.factories import NOW, body, demonstration, invocation

MARKER = "pomegranate-4711"
USER = "alice@example.com"
LATER = NOW + timedelta(hours=1)


@dataclass
class House:
    """A data folder with everything that may hold what clients said."""

    data: Path
    store: Store
    ingester: Ingester
    writer: SpoolWriter
    upkeep: Upkeep
    erasures: Erasures
    registry: Registry
    turns: TurnStore
    clock: list[datetime]
    cipher: Cipher | None

    @property
    def subject(self) -> str:
        return SubjectKey.open(self.data / "subject.key").of("default", USER)

    def secret(self, **changes: Any) -> Invocation:
        """A call of alice's."""
        fields: dict[str, Any] = {
            "subject_id": self.subject,
            "conversation_id": MARKER,
            "request": body(f"{MARKER} {new_id()}"),
            "response": msgspec.Raw(b"null"),
            "sse": f'data: {{"choices":[{{"index":0,"delta":{{"content":"{MARKER}"}}}}]}}\n\n',
        }
        return invocation(**fields | changes)

    def ingest(self) -> None:
        while self.ingester.run_once():
            pass

    def calls(self) -> set[str]:
        rows = self.store.rows("SELECT id::VARCHAR AS id FROM invocations")
        return {row["id"] for row in rows}


@contextmanager
def opened(data: Path, keys: Keyring | None = None) -> Iterator[House]:
    clock = [LATER]
    cipher = None if keys is None else keys.spool
    with Store(data / "log.duckdb", keys=keys) as store:
        ingester = Ingester(store, data / "spool", now=lambda: clock[0], cipher=cipher)
        own = SpoolWriter(data / "spool", "learner", reserve=0, cipher=cipher)
        database = open_database(f"sqlite:///{data / 'state.db'}")
        registry = Registry.open(f"sqlite:///{data / 'state.db'}")
        turns = TurnStore(database)
        owner = Owner(store, ingester, own, lambda: clock[0])
        upkeep = Upkeep(
            store,
            ingester,
            turns,
            spool=data / "spool",
            datasets=data / "datasets",
            retention=RetentionSection(),
            cipher=cipher,
            now=lambda: clock[0],
        )
        erasures = Erasures(
            store,
            owner.write,
            upkeep,
            registry,
            SubjectKey.open(data / "subject.key"),
            datasets=data / "datasets",
            now=lambda: clock[0],
        )
        writer = SpoolWriter(data / "spool", "w0", reserve=0, cipher=cipher)
        yield House(data, store, ingester, writer, upkeep, erasures, registry, turns, clock, cipher)
        writer.close()
        own.close()
        erasures.close()
        registry.close()
        database.dispose()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with opened(tmp_path / "data") as house:
        yield house


def holders(data: Path) -> set[str]:
    """Kinds of files that hold the marker, compressed or not."""
    found = set()
    for path in data.rglob("*"):
        if path.is_file() and MARKER.encode() in _content(path):
            folder = path.parent.relative_to(data)
            found.add(path.name if str(folder) == "." else str(folder))
    return found


def _content(path: Path) -> bytes:
    if path.suffix == ".zst":
        return pa.input_stream(path, compression="zstd").read()
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist()).encode()
    return path.read_bytes()


def dataset(house: House, *calls: Invocation) -> Built:
    """Everybody's calls, demonstrated and made a snapshot of."""
    for call in calls:
        order = MARKER if call.subject_id == house.subject else "7"
        house.writer.append(demonstration(call.id, order=order))
    house.ingest()
    built = build(
        house.store,
        "helpdesk",
        tenant="default",
        where=Filter(),
        held_out=0.8,
        upto=LATER,
        folder=house.data / "datasets",
    )
    record_lineage(house.store, built, alias="helpdesk", upto=LATER, at=LATER)
    return built


def everywhere(house: House) -> tuple[list[Invocation], list[Invocation], Built]:
    """Alice's calls wherever a call can be, among others'; hers, the others', their snapshot."""
    mine = [house.secret() for _ in range(4)]
    others = [invocation(), *(invocation(subject_id="b0" * 16) for _ in range(45))]
    first = SpoolWriter(house.data / "spool", "w1", reserve=0, cipher=house.cipher)
    for call in (*others[:30], *mine[:2]):
        first.append(call)
    first.close()
    for call in (*others[30:], *mine[2:]):
        house.writer.append(call)
    damaged = house.data / "spool" / f"w2-{new_id()}.jsonl"
    damaged.write_bytes(encode(house.secret())[:-30] + b"\n" + b"{half\n")
    words = {"name": "comment", "value": MARKER, "source": "human"}
    for target, name in (("invocation", mine[0].id), ("episode", mine[1].episode_id)):
        said = Feedback(
            id=new_id(), ts=NOW, tenant="default", target=target, target_id=name, **words
        )
        house.writer.append(said)
    built = dataset(house, *others, *mine)
    house.ingest()
    return mine, others, built


def counts(house: House) -> dict[str, int]:
    tables = ("invocations", "feedback", "erasures", "erased", "erasure_steps", "dataset_items")
    return {
        table: house.store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables
    }


def test_an_erasure_sent_again_is_the_same_erasure(house: House) -> None:
    everywhere(house)
    identity = new_id()
    ask = partial(house.erasures.ask, Whom(user=USER), tenant="default", erasure_id=identity)

    first = ask()
    again = ask(remove_now=True)

    assert first == again
    assert first["id"] == str(identity)
    assert [one["id"] for one in house.erasures.recent(tenant="default")] == [str(identity)]


def test_one_removal_runs_at_a_time_and_the_next_ten_minutes_later(house: House) -> None:
    everywhere(house)
    ask = partial(house.erasures.ask, Whom(user=USER), tenant="default", remove_now=True)

    with ThreadPoolExecutor(1) as pool:
        with house.upkeep._lock:
            first = pool.submit(ask)
            while not (house.erasures._removing.locked() or first.done()):
                pass
            with pytest.raises(RateLimited) as refused:
                ask()
        done = first.result()
    house.clock[0] += timedelta(minutes=9)
    with pytest.raises(RateLimited) as soon:
        ask()
    house.clock[0] += timedelta(minutes=1)
    afterwards = ask()

    assert refused.value.retry_after_s
    assert soon.value.retry_after_s == 60
    assert (done["status"], afterwards["status"]) == ("removed", "removed")
    assert len(house.erasures.recent(tenant="default")) == 2


def test_who_is_forgotten_is_in_no_file_and_everybody_else_still_is(house: House) -> None:
    mine, others, built = everywhere(house)
    house.store.checkpoint()
    fresh = house.secret()
    house.writer.append(fresh)
    house.ingest()
    before = holders(house.data)

    receipt = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)

    assert before == {
        "log.duckdb",
        "log.duckdb.wal",
        "spool",
        "spool/done",
        "spool/quarantine",
        "datasets",
    }
    assert holders(house.data) == set()
    assert house.calls() == {str(call.id) for call in others}
    assert counts(house)["feedback"] == len(others)
    assert (receipt["status"], receipt["invocations"]) == ("removed", len(mine) + 1)
    assert receipt["feedback"] == len(mine) + 2
    assert not built.path.exists()


def test_the_raw_name_of_who_is_forgotten_is_written_nowhere(house: House) -> None:
    house.writer.append(house.secret())

    house.erasures.ask(Whom(user=USER), tenant="default")

    named = [path for path in house.data.rglob("*") if path.is_file()]
    assert not [path for path in named if USER.encode() in _content(path)]


def test_nothing_comes_back_when_the_whole_spool_is_read_again(house: House) -> None:
    everywhere(house)
    house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)
    before = counts(house)

    with house.store.transaction() as transaction:
        transaction.execute("DELETE FROM spool_segments")
    again = Ingester(house.store, house.data / "spool", now=lambda: LATER)
    while again.run_once():
        pass

    assert counts(house) == before
    assert holders(house.data) == set()


def test_what_turns_up_late_is_left_out_and_what_began_later_is_kept(house: House) -> None:
    house.erasures.ask(Whom(user=USER), tenant="default")
    late, after = house.secret(), house.secret(ts=LATER + timedelta(seconds=1))
    for record in (late, demonstration(late.id, order=MARKER), after):
        house.writer.append(record)

    house.ingest()

    assert house.calls() == {str(after.id)}
    assert counts(house)["feedback"] == 0
    assert house.erasures.recent(tenant="default")[0]["invocations"] == 1


def test_late_rows_of_somebody_already_removed_leave_the_files_with_the_next_removal(
    house: House,
) -> None:
    house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)
    house.writer.append(house.secret())
    house.clock[0] += timedelta(hours=1)
    house.ingest()
    [late] = house.erasures.recent(tenant="default")

    house.upkeep.remove()
    [removed] = house.erasures.recent(tenant="default")

    assert (late["status"], removed["status"]) == ("deleted", "removed")
    assert holders(house.data) == set()


def test_the_receipt_names_snapshots_and_adapters_and_what_became_of_them(house: House) -> None:
    _, others, built = everywhere(house)
    adapter = register(house, built.path.stem)

    receipt = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)

    [told] = receipt["datasets"]
    rebuilt = house.data / "datasets" / f"{told['rebuilt_as']}.parquet"
    samples = [*read(rebuilt, "train"), *read(rebuilt, "held_out")]
    assert (told["sha256"], told["removed"]) == (built.path.stem, True)
    assert {sample.id for sample in samples} == {str(call.id) for call in others}
    assert receipt["adapters"] == [
        {"alias": "helpdesk", "version": 1, "served_name": adapter, "stage": "candidate"}
    ]
    assert house.store.rows(
        "SELECT n_rows, query FROM datasets WHERE sha256 = ?", [rebuilt.stem]
    ) == [{"n_rows": len(others), "query": f"erasure {receipt['id']} of {built.path.stem}"}]


def test_a_snapshot_rebuilt_twice_is_followed_to_its_newest(house: House) -> None:
    _, others, built = everywhere(house)
    first = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)
    once = first["datasets"][0]["rebuilt_as"]
    house.clock[0] += timedelta(minutes=10)

    second = house.erasures.ask(Whom(invocation_id=others[0].id), tenant="default", remove_now=True)

    again = house.erasures.get(first["id"], tenant="default")
    newest = {told["rebuilt_as"] for told in second["datasets"]}
    assert again is not None
    assert {told["sha256"] for told in second["datasets"]} == {built.path.stem, once}
    assert newest == {again["datasets"][0]["rebuilt_as"]} != {once}
    assert [file.stem for file in (house.data / "datasets").iterdir()] == [*newest]


def test_a_snapshot_that_a_turn_learns_from_waits_for_its_end(house: House) -> None:
    *_, built = everywhere(house)
    turn = running(house, dataset=str(built.path))

    waiting = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)
    held = holders(house.data)
    house.turns.save(turn.to(TurnState.FAILED, at=LATER), expected=turn)
    house.upkeep.remove()

    done = house.erasures.get(waiting["id"], tenant="default")
    assert (waiting["status"], held) == ("deleted", {"datasets"})
    assert done is not None
    assert (done["status"], holders(house.data)) == ("removed", set())


def test_an_erasure_is_finished_within_a_day_by_itself(house: House) -> None:
    everywhere(house)
    waiting = house.erasures.ask(Whom(user=USER), tenant="default")

    house.upkeep.tick()
    early = house.erasures.get(waiting["id"], tenant="default")
    house.clock[0] += timedelta(days=1)
    house.upkeep.tick()

    late = house.erasures.get(waiting["id"], tenant="default")
    assert early is not None
    assert late is not None
    assert (early["status"], late["status"]) == ("deleted", "removed")
    assert holders(house.data) == set()


def test_a_removal_by_a_clock_that_was_wrong_puts_none_off(house: House) -> None:
    everywhere(house)
    house.clock[0] += timedelta(days=9000)
    house.upkeep.remove()
    house.clock[0] -= timedelta(days=9000)
    house.erasures.ask(Whom(user=USER), tenant="default")

    house.clock[0] += timedelta(days=2)
    house.upkeep.tick()

    [told] = house.erasures.recent(tenant="default")
    assert told["status"] == "removed"


def test_while_a_snapshot_is_being_made_the_tick_waits(house: House) -> None:
    everywhere(house)
    running(house, dataset=None)
    waiting = house.erasures.ask(Whom(user=USER), tenant="default")
    house.clock[0] += timedelta(days=2)

    house.upkeep.tick()

    told = house.erasures.get(waiting["id"], tenant="default")
    assert told is not None
    assert told["status"] == "deleted"


def test_expired_bodies_leave_log_and_snapshots_by_themselves(house: House) -> None:
    *_, built = everywhere(house)
    house.clock[0] += timedelta(days=31)

    keeping(house, RetentionSection.model_validate({"bodies": "30d"})).tick()

    emptied = "SELECT count(*) AS n FROM invocations WHERE request IS NULL AND response IS NULL"
    assert house.store.rows(emptied)[0]["n"] == counts(house)["invocations"] > 0
    assert not built.path.exists()
    assert not list((house.data / "datasets").iterdir())


def test_a_single_call_is_forgotten_and_no_other_tenant_can_see_or_do_that(house: House) -> None:
    mine, others, _ = everywhere(house)

    foreign = house.erasures.ask(Whom(invocation_id=mine[0].id), tenant="other")
    kept_by_it = house.calls()
    own = house.erasures.ask(Whom(invocation_id=mine[0].id), tenant="default")

    every = {str(call.id) for call in (*mine, *others)}
    assert (foreign["invocations"], kept_by_it) == (0, every)
    assert own["invocations"] == 1
    assert house.calls() == every - {str(mine[0].id)}
    assert house.erasures.get(own["id"], tenant="other") is None
    assert [one["id"] for one in house.erasures.recent(tenant="other")] == [foreign["id"]]


def test_a_row_that_another_host_let_in_late_goes_at_the_next_tick(house: House) -> None:
    house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)
    late, other = house.secret(), invocation()
    table = rows.table([rows.invocation(one, LATER, {}) for one in (late, other)], rows.INVOCATIONS)
    house.store.append({"invocations": table}, [], LATER)

    house.clock[0] += timedelta(hours=1)
    house.upkeep.tick()
    [ticked] = house.erasures.recent(tenant="default")
    house.clock[0] += timedelta(hours=24)
    house.upkeep.tick()
    [removed] = house.erasures.recent(tenant="default")

    assert house.calls() == {str(other.id)}
    assert (ticked["invocations"], ticked["status"]) == (1, "deleted")
    assert removed["status"] == "removed"


def test_feedback_that_another_host_let_in_late_goes_and_what_was_said_later_stays(
    house: House,
) -> None:
    gone, bare = house.secret(), invocation(request=body(MARKER))
    for record in (gone, bare):
        house.writer.append(record)
    house.ingest()
    house.erasures.ask(Whom(invocation_id=gone.id), tenant="default")
    house.writer.append(
        Erasure(id=new_id(), ts=LATER, tenant="default", invocation_id=bare.id, scope="bodies")
    )
    house.ingest()
    early, later = (
        msgspec.structs.replace(demonstration(bare.id, order=order), ts=LATER + timedelta(hours=n))
        for order, n in ((MARKER, -1), ("7", 1))
    )
    said = [rows.feedback(one, LATER) for one in (demonstration(gone.id, order="8"), early, later)]
    house.store.append({"feedback": rows.table(said, rows.FEEDBACK)}, [], LATER)

    house.upkeep.tick()

    left = house.store.rows("SELECT id::VARCHAR AS id, value IS NULL AS bare FROM feedback")
    assert {row["id"]: row["bare"] for row in left} == {str(early.id): True, str(later.id): False}


def test_a_snapshot_that_cannot_be_read_holds_up_nothing_else(house: House) -> None:
    *_, built = everywhere(house)
    built.path.write_bytes(b"PAR1 and then nothing")

    receipt = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)

    assert receipt["status"] == "deleted"
    assert holders(house.data / "spool") == set()
    assert built.path.exists()


def test_who_is_forgotten_is_under_no_seal_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "ab" * 32)
    keys = Keyring.of(bytes.fromhex("ab" * 32))
    data = tmp_path / "data"
    with opened(data, keys) as house:
        _, others, _ = everywhere(house)

        receipt = house.erasures.ask(Whom(user=USER), tenant="default", remove_now=True)

        contents = [path.read_bytes() for path in (data / "spool").glob("*.jsonl")]
        for one in kept(data / "spool"):
            with one.open() as file:
                contents.append(file.read())
        lines = [line for content in contents for line in content.splitlines() if line.strip()]
        left = [decode(line, keys.spool) for line in lines if line.startswith(b"~")]
        rebuilt = data / "datasets" / f"{receipt['datasets'][0]['rebuilt_as']}.parquet"
        samples = [*read(rebuilt, "train"), *read(rebuilt, "held_out")]

    spooled = {str(one.id) for one in left if isinstance(one, Invocation)}
    assert receipt["status"] == "removed"
    assert spooled == {str(call.id) for call in others} == {sample.id for sample in samples}
    assert MARKER not in str(left)
    assert not rebuilt.read_bytes().startswith(b"PAR1")


def register(house: House, digest: str) -> str:
    """An adapter that learnt from the snapshot; its served name."""
    house.registry.declare("helpdesk", "base", "base", NOW)
    artifact = Artifact("c0ffee" * 10, house.data / "adapters" / "x", 8, "base")
    lineage = {"turn": "turn-1", "dataset": digest}
    return house.registry.add("helpdesk", artifact, at=NOW, lineage=lineage).served_name


def running(house: House, *, dataset: str | None) -> Turn:
    turn = Turn(
        id="turn-1",
        alias="helpdesk",
        state=TurnState.RUNNING,
        phase=Phase.SFT,
        trigger="test",
        started_at=NOW,
        changed_at=NOW,
        watermark=NOW,
        dataset=dataset,
    )
    house.turns.add(turn)
    return turn


def keeping(house: House, retention: RetentionSection) -> Upkeep:
    """The same house with clocks."""
    return Upkeep(
        house.store,
        house.ingester,
        house.turns,
        spool=house.data / "spool",
        datasets=house.data / "datasets",
        retention=retention,
        cipher=None,
        now=lambda: house.clock[0],
    )
