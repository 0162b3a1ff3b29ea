import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Forbidden, ModelForbidden, Unauthorized
from gateway.keys import (
    EVERYTHING,
    Budget,
    Key,
    KeyBook,
    KeyStore,
    KeyTaken,
    Limits,
    Scope,
    Window,
    hashed,
    wider,
)
from serving.database import open_database
from serving.registry import Registry

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "sk-ratchet-0123456789abcdefABCD"
OLD_TABLE = """
CREATE TABLE api_keys (
    id VARCHAR NOT NULL, name VARCHAR NOT NULL, hash VARCHAR NOT NULL, tenant VARCHAR NOT NULL,
    created_at DATETIME NOT NULL, revoked_at DATETIME, PRIMARY KEY (id), UNIQUE (hash)
)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def keys(url: str) -> Iterator[KeyStore]:
    database = open_database(url)
    yield KeyStore(database)
    database.dispose()


def book(*, at: datetime = AT, **rights: Any) -> KeyBook:
    key = Key("key_1", "ci", "acme", **rights)
    return KeyBook({hashed(SECRET): key}, now=lambda: at)


def test_a_key_opens_by_its_hash_until_it_is_revoked(keys: KeyStore) -> None:
    key, secret = keys.create("ci", tenant="acme", at=AT)
    before = keys.active()
    revoked = [keys.revoke(key.id, at=AT), keys.revoke(key.id, at=AT)]

    assert before == {hashed(secret): key}
    assert keys.active() == {}
    assert revoked == [True, False]


def test_what_a_key_may_is_kept(keys: KeyStore) -> None:
    made, secret = keys.create(
        "ci",
        tenant="acme",
        at=AT,
        scopes=frozenset({Scope.TRAIN, Scope.INFERENCE}),
        models=frozenset({"helpdesk"}),
        train=False,
        limits=Limits(60, 1000, 4),
        budgets=(Budget(Window.DAY, money=5.0), Budget(Window.MONTH, tokens=10**6)),
        expires_at=AT + timedelta(days=30),
    )

    assert keys.active()[hashed(secret)] == made
    assert made.limits.concurrency == 4


def test_a_new_key_is_for_inference_alone(keys: KeyStore) -> None:
    key, _ = keys.create("ci", tenant="acme", at=AT)

    assert key.scopes == {Scope.INFERENCE}


@pytest.mark.parametrize("tenant", ["", "a b", "müller", "a\nb", "x" * 129])
def test_a_tenants_name_fits_a_header(keys: KeyStore, tenant: str) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        keys.create("ci", tenant=tenant, at=AT)

    assert keys.active() == {}


def test_a_rotated_key_has_a_new_secret_and_the_same_rights(keys: KeyStore) -> None:
    key, old = keys.create("ci", tenant="acme", at=AT, models=frozenset({"helpdesk"}))

    new = keys.rotate(key.id, at=AT)

    assert new is not None
    assert new != old
    assert keys.active() == {hashed(new): key}


def test_the_old_secret_opens_for_the_grace_that_it_was_given(keys: KeyStore) -> None:
    key, first = keys.create("ci", tenant="acme", at=AT)
    hour = timedelta(hours=1)

    second = keys.rotate(key.id, at=AT, grace=hour)
    after_one = keys.active()
    third = keys.rotate(key.id, at=AT, grace=2 * hour)

    assert after_one[hashed(second or "")] == key
    assert after_one[hashed(first)] == replace(key, expires_at=AT + hour)
    assert keys.active().keys() == {hashed(second or ""), hashed(third or "")}


def test_grace_is_no_longer_than_the_key_itself(keys: KeyStore) -> None:
    end = AT + timedelta(minutes=1)
    key, old = keys.create("ci", tenant="acme", at=AT, expires_at=end)

    keys.rotate(key.id, at=AT, grace=timedelta(hours=1))

    assert keys.active()[hashed(old)].expires_at == end


def test_what_no_longer_opens_is_not_rotated(keys: KeyStore) -> None:
    key, _ = keys.create("ci", tenant="acme", at=AT)
    keys.revoke(key.id, at=AT)

    assert keys.rotate(key.id, at=AT) is None
    assert keys.rotate("key_0", at=AT) is None


def test_an_id_is_of_one_key(keys: KeyStore) -> None:
    key, _ = keys.create("ci", tenant="acme", at=AT, key_id="key_1")
    with pytest.raises(KeyTaken, match="key_1"):
        keys.create("ci", tenant="acme", at=AT, key_id="key_1")
    keys.create("ci", tenant="other", at=AT)

    assert [stored.key for stored in keys.all(tenant="acme")] == [key]
    assert len(keys.all()) == 2


def test_readers_are_told_of_every_change(keys: KeyStore, url: str) -> None:
    registry = Registry.open(url)
    seen = [registry.data_version()]

    key, _ = keys.create("ci", tenant="acme", at=AT)
    seen.append(registry.data_version())
    keys.rotate(key.id, at=AT)
    seen.append(registry.data_version())
    keys.revoke(key.id, at=AT)
    seen.append(registry.data_version())

    assert seen == sorted(set(seen))
    registry.close()


def test_keys_of_an_earlier_release_open_everything_as_they_did(tmp_path: Path, url: str) -> None:
    with sqlite3.connect(tmp_path / "state.db") as old:
        old.execute(OLD_TABLE)
        insert = "INSERT INTO api_keys VALUES ('key_1', 'ci', ?, 'acme', '2026-01-01', NULL)"
        old.execute(insert, [hashed(SECRET)])
    old.close()

    database = open_database(url)
    keys = KeyStore(database)
    created, _ = keys.create("new", tenant="acme", at=AT, train=False)

    assert keys.active()[hashed(SECRET)] == Key("key_1", "ci", "acme", scopes=EVERYTHING)
    assert {stored.key.id for stored in keys.all()} == {"key_1", created.id}
    database.dispose()


def test_several_processes_complete_an_old_database_at_once(tmp_path: Path, url: str) -> None:
    with sqlite3.connect(tmp_path / "state.db") as old:
        old.execute(OLD_TABLE)
    old.close()
    databases = [open_database(url) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(KeyStore, databases))

    assert [store.active() for store in opened] == [{}] * 8
    for database in databases:
        database.dispose()


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + SECRET.encode()},
        {b"authorization": b"bearer  " + SECRET.encode() + b" "},
        {b"x-api-key": SECRET.encode()},
    ],
)
def test_a_secret_is_taken_as_openai_and_as_anthropic_send_it(headers: dict[bytes, bytes]) -> None:
    opener = book()

    assert opener.key(headers).id == "key_1"
    assert opener.key(headers) is opener.key(headers)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "didn't provide an API key"),
        ({b"authorization": SECRET.encode()}, "didn't provide"),
        ({b"authorization": b"Basic abc", b"x-api-key": SECRET.encode()}, "didn't provide"),
        ({b"authorization": b"Bearer sk-ratchet-0123456789wxyz"}, r"provided: sk-\.\.\.wxyz\."),
        ({b"authorization": b"Bearer hunter2"}, r"provided: \*\*\*\."),
        ({b"x-api-key": b"sk-ratchet-0123456789\xff\x00\r\n"}, r"provided: \*\*\*\."),
    ],
)
def test_who_is_not_let_in_is_told_why(headers: dict[bytes, bytes], why: str) -> None:
    opener = book()
    opener.key({b"x-api-key": SECRET.encode()})

    with pytest.raises(Unauthorized, match=why):
        opener.key(headers)


def test_a_key_opens_until_it_expires_even_when_it_was_seen_before() -> None:
    clock = [AT]
    key = Key("key_1", "ci", "acme", expires_at=AT + timedelta(hours=1))
    opener = KeyBook({hashed(SECRET): key}, now=lambda: clock[0])
    headers = {b"x-api-key": SECRET.encode()}

    before = opener.key(headers)
    clock[0] += timedelta(hours=1)

    assert before is key
    with pytest.raises(Unauthorized, match="expired at 2026-01-01 01:00:00 UTC"):
        opener.key(headers)


def test_what_is_remembered_of_spellings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keys.book._REMEMBERED", 2)
    opener = book()

    for spaces in range(9):
        opener.key({b"authorization": b"Bearer " + b" " * spaces + SECRET.encode()})

    assert len(opener._bearers) <= 2


def test_a_scope_that_is_lacking_is_named() -> None:
    key = Key("key_1", "ci", "acme", scopes=frozenset({Scope.INFERENCE}))

    key.require(Scope.INFERENCE)
    with pytest.raises(Forbidden, match=r"Missing scopes: admin\. This key has: inference"):
        key.require(Scope.ADMIN)


@pytest.mark.parametrize("model", ["helpdesk", "helpdesk@v7", "ft:base:helpdesk"])
def test_an_alias_may_be_used_with_its_versions(model: str) -> None:
    key = Key("key_1", "ci", "acme", models=frozenset({"helpdesk", "ft:base:helpdesk"}))

    key.may_use(model)


@pytest.mark.parametrize("model", ["", "base", "helpdesk2", "ft:base:other", "base@v1"])
def test_any_other_model_is_refused_as_openai_refuses_it(model: str) -> None:
    key = Key("key_1", "ci", "acme", models=frozenset({"helpdesk"}))

    with pytest.raises(ModelForbidden) as refused:
        key.may_use(model)

    assert (refused.value.status, refused.value.code) == (403, "model_not_found")


PARENT = Key(
    "key_1",
    "parent",
    "acme",
    scopes=frozenset({Scope.ADMIN, Scope.INFERENCE}),
    models=frozenset({"helpdesk"}),
    train=False,
    limits=Limits(60, None, 4),
    budgets=(Budget(Window.DAY, money=5.0),),
    expires_at=AT,
)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({}, []),
        ({"tenant": "other"}, ["tenant"]),
        ({"scopes": EVERYTHING}, ["scopes"]),
        ({"scopes": frozenset({Scope.INFERENCE})}, []),
        ({"models": None}, ["models"]),
        ({"models": frozenset({"helpdesk", "base"})}, ["models"]),
        ({"models": frozenset({"helpdesk@v7"})}, []),
        ({"models": frozenset()}, []),
        ({"train": True}, ["train"]),
        ({"limits": Limits(61, 10, 4)}, ["limits.requests_per_minute"]),
        ({"limits": Limits(60, 10, None)}, ["limits.concurrency"]),
        ({"budgets": ()}, ["budgets"]),
        ({"budgets": (Budget(Window.MONTH, money=1.0),)}, ["budgets"]),
        ({"budgets": (Budget(Window.DAY, tokens=1),)}, ["budgets"]),
        ({"budgets": (Budget(Window.DAY, 7, 4.0), Budget(Window.MONTH, 9))}, []),
        ({"expires_at": None}, ["expires_at"]),
        ({"expires_at": AT + timedelta(seconds=1)}, ["expires_at"]),
    ],
)
def test_what_is_wider_than_its_parent_is_named(changed: dict[str, Any], what: list[str]) -> None:
    child = replace(PARENT, **changed)

    assert wider(child, PARENT) == what


def test_nothing_is_wider_than_a_key_without_bounds() -> None:
    assert wider(PARENT, Key("key_0", "root", "acme")) == []


def test_a_key_counts_for_its_makers_even_when_they_are_revoked(keys: KeyStore) -> None:
    tight = Limits(requests_per_minute=1)
    maker, _ = keys.create("maker", tenant="acme", at=AT, limits=tight)
    made, _ = keys.create("made", tenant="acme", at=AT, within=maker)
    last, secret = keys.create("last", tenant="acme", at=AT, limits=tight, within=made)
    for key in (maker, made):
        keys.revoke(key.id, at=AT)

    (opens,) = keys.active().values()

    assert opens == last == keys.active()[hashed(secret)]
    assert [key.name for key in opens.counted] == ["last", "maker"]
