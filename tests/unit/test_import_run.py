import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ImportFailed, SpoolError
from gateway.log.cipher import Keyring
from gateway.log.import_.run import Import, Rejects, Spooled, Tally, shape_of
from gateway.log.ingest import Ingester
from gateway.log.record import Erasure, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from tests.factories import NOW, intake

ANSWER = {"role": "assistant", "content": "hello"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


@pytest.fixture
def ingester(store: Store, tmp_path: Path) -> Ingester:
    return Ingester(store, tmp_path / "spool", now=lambda: NOW)


def row(n: int, **changes: Any) -> bytes:
    """One row of NVIDIA's flywheel."""
    return json.dumps(
        {
            "timestamp": 1715854074 + n,
            "workload_id": "router",
            "client_id": "dev",
            "request": {"model": "m", "messages": [{"role": "user", "content": f"q {n}"}]},
            "response": {"id": f"c{n}", "choices": [{"message": ANSWER}]},
        }
        | changes
    ).encode()


def never(asked: int, refusal: SpoolError | None) -> None:
    """Fails the test when there is no room."""
    assert refusal is None


def unheard(tally: Tally) -> None:
    """Nobody watches."""


def take(
    name: str,
    path: Path,
    ingester: Ingester,
    *,
    relieve: Callable[[int, SpoolError | None], None] = never,
    quota: int = 1 << 30,
    **into: Any,
) -> Tally:
    """Import ``path`` and ingest it."""
    spool = SpoolWriter(path.with_name("spool"), "import", quota=quota, reserve=0)
    tally = Tally()
    try:
        with Rejects(path.with_name("rejects.jsonl")) as rejects:
            job = Import(
                shape_of(name),
                intake(name, **into),
                Spooled(spool, relieve),
                rejects,
                unheard,
                tally,
            )
            job.take(path)
    finally:
        spool.close()
        while ingester.run_once():
            pass
    return tally


def count(store: Store, table: str = "invocations") -> int:
    return int(store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def test_what_is_imported_twice_is_in_the_log_once(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"q {n}"}, ANSWER]}) + "\n"
            for n in range(50)
        )
    )

    first = take("openai", path, ingester, alias="helpdesk")
    again = take("openai", path, ingester, alias="helpdesk")

    assert first.records == again.records == {"invocation": 50, "feedback": 50}
    assert (count(store), count(store, "feedback")) == (50, 50)


def test_another_tenants_import_of_the_same_file_is_its_own(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row(1))

    take("nvidia", path, ingester)
    take("nvidia", path, ingester, tenant="other")

    assert {one["tenant"] for one in store.rows("SELECT tenant FROM invocations")} == {
        "default",
        "other",
    }


def test_bad_rows_are_set_aside_with_their_place_and_reason_and_the_rest_is_imported(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    deep = b'{"a":' * 2000 + b"1" + b"}" * 2000
    bad = [row(2)[:-5], b"\xff\xfe", b"[]", row(3, timestamp="soon"), row(4, request=[]), deep]
    path.write_bytes(b"\n".join([row(1), *bad, row(5)]))

    tally = take("nvidia", path, ingester)

    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert (tally.rows, tally.rejected, count(store)) == (8, 6, 2)
    assert [one["line"] for one in rejects] == [2, 3, 4, 5, 6, 7]
    assert {one["source"] for one in rejects} == {str(path)}
    assert all(one["reason"] for one in rejects)
    assert rejects[3]["row"]["timestamp"] == "soon"
    assert rejects[0]["row"] == row(2)[:-5].decode()
    assert (tmp_path / "rejects.jsonl").stat().st_mode & 0o777 == 0o600


def test_where_nothing_is_rejected_there_is_no_file_of_rejects(
    ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row(1))

    take("nvidia", path, ingester)

    assert not (tmp_path / "rejects.jsonl").exists()


def test_of_a_broken_file_everything_before_the_break_is_in_the_log(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(b"\n".join(row(n) for n in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImportFailed, match="breaks off after row"):
        take("nvidia", path, ingester)
    before = count(store)

    path.write_bytes(whole)
    take("nvidia", path, ingester)

    assert 0 < before < 5000
    assert count(store) == 5000


def test_a_full_spool_makes_the_import_wait_for_the_ingester(
    store: Store, ingester: Ingester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log.space.LOOK_EVERY_S", 0)
    monkeypatch.setattr("gateway.log.spool.SEGMENT_BYTES", 4 << 10)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(row(n) for n in range(500)))
    waited = []

    def relieve(asked: int, refusal: SpoolError | None) -> None:
        waited.append(asked)
        ingester.run_once()

    tally = take("nvidia", path, ingester, relieve=relieve, quota=20 << 10)

    assert waited
    assert tally.rows == count(store) == 500


def test_a_spool_that_stays_full_ends_the_import(ingester: Ingester, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(row(n) for n in range(500)))

    def give_up(asked: int, refusal: SpoolError | None) -> None:
        if refusal is not None and asked > 3:
            raise refusal

    with pytest.raises(SpoolError, match="quota"):
        take("nvidia", path, ingester, relieve=give_up, quota=20 << 10)


def test_an_erased_end_user_does_not_come_back_with_an_import(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    asked = {"messages": [{"role": "user", "content": "I am Ann"}], "user": "ann"}
    path.write_bytes(row(1, request=asked) + b"\n" + row(2))
    spool = SpoolWriter(tmp_path / "spool", "w0", reserve=0)
    subject = intake("nvidia").subject("default", "ann")
    spool.append(Erasure(id=new_id(), ts=NOW, tenant="default", subject_id=subject))
    spool.close()
    ingester.run_once()

    take("nvidia", path, ingester)

    assert count(store) == 1
    assert not store.rows("SELECT id FROM invocations WHERE request LIKE '%Ann%'")


def test_with_a_key_nothing_of_an_import_is_readable_in_the_spool(tmp_path: Path) -> None:
    keys = Keyring.of(b"k" * 32)
    spool = SpoolWriter(tmp_path / "spool", "import", reserve=0, cipher=keys.spool)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row(1))
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        sink = Spooled(spool, never)
        Import(shape_of("nvidia"), intake("nvidia"), sink, rejects, unheard).take(path)
    spool.close()

    (segment,) = (tmp_path / "spool").glob("*.jsonl")

    assert b"q 1" not in segment.read_bytes()


def test_numbers_that_no_column_takes_do_not_stop_the_others(
    store: Store, ingester: Ingester, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    odd = {"choices": [], "usage": {"prompt_tokens": 1 << 40, "completion_tokens": "many"}}
    path.write_bytes(row(1, response=odd) + b"\n" + row(2))

    take("nvidia", path, ingester)

    assert count(store) == 2
