from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from gateway.once import REMEMBERED, Once
from serving.database import open_database

AT = datetime(2026, 1, 1, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)


def test_a_request_sent_again_has_the_id_of_the_first(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    once = Once(database)
    ask = partial(once.id, "POST /v1/feedback", tenant="acme", key="k1", at=AT)

    first, again = ask(new=ONE), ask(new=TWO)

    assert (first, again) == (ONE, ONE)
    database.dispose()


def test_a_key_is_of_one_tenant_and_one_thing(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    once = Once(database)

    asked = [
        once.id(what, tenant=tenant, key=key, new=UUID(int=number), at=AT)
        for number, (what, tenant, key) in enumerate(
            [("a", "acme", "k1"), ("b", "acme", "k1"), ("a", "other", "k1"), ("a", "acme", "k2")]
        )
    ]

    assert [one.int for one in asked] == [0, 1, 2, 3]
    database.dispose()


def test_of_requests_sent_at_once_one_is_the_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    databases = [open_database(url) for _ in range(8)]
    gateways = [Once(database) for database in databases]

    with ThreadPoolExecutor(8) as pool:
        ids = set(
            pool.map(
                lambda at: at[1].id("a", tenant="t", key="k", new=UUID(int=at[0]), at=AT),
                enumerate(gateways),
            )
        )

    assert len(ids) == 1
    for database in databases:
        database.dispose()


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    once = Once(database)
    later = AT + REMEMBERED + timedelta(seconds=1)

    once.id("a", tenant="t", key="k1", new=ONE, at=AT)
    once.id("a", tenant="t", key="k2", new=ONE, at=later)

    assert once.id("a", tenant="t", key="k1", new=TWO, at=later) == TWO
    database.dispose()
