"""What ``ratchet keys`` does and prints."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.keys import Key, KeyStore, Rights, StoredKey, told
from learner.errors import LearnerError
from learner.settings import load
from serving.database import open_database


def create(  # noqa: PLR0913 - what a key is
    config_path: Path,
    name: str,
    tenant: str,
    rights: Rights,
    *,
    expires: timedelta | None,
    as_json: bool,
) -> None:
    """Print a new key, the one time it can be. Raises LearnerError for a moment out of reach."""
    at = datetime.now(UTC)
    try:
        rights["expires_at"] = None if expires is None else at + expires
    except OverflowError as error:
        raise LearnerError("a key cannot expire that late; leave --expires out") from error
    key, secret = _store(config_path).create(name, tenant=tenant, at=at, **rights)
    _show_secret(StoredKey(key, at), secret, as_json=as_json)


def rotate(config_path: Path, key_id: str, grace: timedelta, *, as_json: bool) -> None:
    """Print its new secret. Raises LearnerError when there is no such key."""
    keys = _store(config_path)
    try:
        secret = keys.rotate(key_id, at=datetime.now(UTC), grace=grace)
    except OverflowError as error:
        raise LearnerError("no grace is that long; `--grace 1d` is a day") from error
    stored = keys.get(key_id)
    if secret is None or stored is None:
        raise _unknown(key_id)
    _show_secret(stored, secret, as_json=as_json)


def show_all(config_path: Path, tenant: str | None, *, as_json: bool) -> None:
    """Print the keys that are not revoked."""
    keys = _store(config_path).all(tenant=tenant)
    if as_json:
        click.echo(json.dumps([told(stored) for stored in keys]))
    for stored in () if as_json else keys:
        click.echo(_line(stored))


def show_one(config_path: Path, key_id: str, *, as_json: bool) -> None:
    """Print one key. Raises LearnerError when there never was such a key."""
    stored = _store(config_path).get(key_id)
    if stored is None:
        raise _unknown(key_id)
    click.echo(json.dumps(told(stored)) if as_json else _line(stored))


def revoke(config_path: Path, key_id: str) -> None:
    """Revoke one key. Raises LearnerError when there is no such key."""
    if not _store(config_path).revoke(key_id, at=datetime.now(UTC)):
        raise _unknown(key_id)
    click.echo(f"{key_id} no longer opens")


def _store(config_path: Path) -> KeyStore:
    return KeyStore(open_database(load(config_path).database))


def _unknown(key_id: str) -> LearnerError:
    return LearnerError(f"there is no key {key_id} that opens; `ratchet keys list` shows them")


def _show_secret(stored: StoredKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told(stored) | {"key": secret}))
    else:
        click.echo(f"{secret}\nThis is {_line(stored)}\nThe key itself is not shown again.")


def _line(stored: StoredKey) -> str:
    key = stored.key
    ends = [f"created {stored.created_at:%Y-%m-%d}"]
    if key.expires_at is not None:
        ends.append(f"expires {key.expires_at:%Y-%m-%d %H:%M} UTC")
    if stored.revoked_at is not None:
        ends.append(f"revoked {stored.revoked_at:%Y-%m-%d %H:%M} UTC")
    parts = [key.id, key.name, f"tenant {key.tenant}", *_rights(key), ", ".join(ends)]
    return "  ".join(parts)


def _rights(key: Key) -> Iterator[str]:
    """What it opens, and how far."""
    yield "+".join(sorted(key.scopes))
    yield "any model" if key.models is None else f"models {', '.join(sorted(key.models)) or 'none'}"
    if not key.train:
        yield "not learnt from"
    for bound, unit in (
        (key.limits.requests_per_minute, "requests/min"),
        (key.limits.tokens_per_minute, "tokens/min"),
        (key.limits.concurrency, "at once"),
    ):
        if bound is not None:
            yield f"{bound} {unit}"
    for budget in key.budgets:
        if budget.money is not None:
            yield f"{budget.money:g} money/{budget.window}"
        if budget.tokens is not None:
            yield f"{budget.tokens} tokens/{budget.window}"
