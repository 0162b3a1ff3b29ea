from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import BadQuery, StoreError, StoreLocked
from gateway.log.ingest import Ingester
from gateway.log.spool import SpoolWriter
from gateway.log.store import Offset, Store
from tests.factories import NOW, body, invocation


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
