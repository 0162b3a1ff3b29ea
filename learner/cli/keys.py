"""What ``ratchet keys`` does and prints."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.errors import LimitsUnusable
from gateway.keys import Key, KeyStore, Rights, Spent, StoredKey, told
from gateway.limits import open_limits, used_by
from learner.errors import LearnerError
from learner.settings import load
from serving.database import open_database

Used = tuple[Spent, ...] | None
"""None: nobody can say."""


def create(  # noqa: PLR0913 - what a key is
    config_path: Path,
    name: str,
    tenant: str,
    rights: Rights,
    *,
    expires: timedelta | None,
    as_json: bool,
) -> None:
    """Print a new key, the one time it can be. Raises LearnerError for a name that nobody can
    read, or a moment out of reach.
    """
    at = datetime.now(UTC)
    if not name.strip() or not name.isprintable():
        raise LearnerError(
            "a key's name is for people to read; `ratchet keys create web` gives one"
        )
    try:
        rights["expires_at"] = None if expires is None else at + expires
    except OverflowError as error:
        raise LearnerError("a key cannot expire that late; leave --expires out") from error
    key, secret = _store(config_path).create(name, tenant=tenant, at=at, **rights)
    _show_secret(config_path, StoredKey(key, at), secret, as_json=as_json)


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
    _show_secret(config_path, stored, secret, as_json=as_json)


def show_all(config_path: Path, tenant: str | None, *, as_json: bool) -> None:
    """Print the keys that are not revoked."""
    keys = _store(config_path).all(tenant=tenant)
    used = _used(config_path, keys)
    if as_json:
        click.echo(json.dumps([told(stored, used[stored.key.id]) for stored in keys]))
    for stored in () if as_json else keys:
        click.echo(_line(stored, used[stored.key.id]))


def show_one(config_path: Path, key_id: str, *, as_json: bool) -> None:
    """Print one key. Raises LearnerError when there never was such a key."""
    stored = _store(config_path).get(key_id)
    if stored is None:
        raise LearnerError(
            f"there never was a key {key_id}; `ratchet keys list` shows those there are"
        )
    used = _used(config_path, [stored])[key_id]
    click.echo(json.dumps(told(stored, used)) if as_json else _line(stored, used))


def revoke(config_path: Path, key_id: str) -> None:
    """Revoke one key. Raises LearnerError when there is no such key."""
    if not _store(config_path).revoke(key_id, at=datetime.now(UTC)):
        raise _unknown(key_id)
    click.echo(f"{key_id} no longer opens")


def _store(config_path: Path) -> KeyStore:
    return KeyStore(open_database(load(config_path).database))


def _unknown(key_id: str) -> LearnerError:
    return LearnerError(f"there is no key {key_id} that opens; `ratchet keys list` shows them")


def _used(config_path: Path, keys: Sequence[StoredKey]) -> dict[str, Used]:
    """What each has used of its budgets. Where nobody can say, that is no error."""
    if not any(stored.key.budgets for stored in keys):
        return {stored.key.id: () for stored in keys}
    return asyncio.run(_asked(load(config_path).limits, [stored.key for stored in keys]))


async def _asked(limits: str, keys: list[Key]) -> dict[str, Used]:
    try:
        limiter = open_limits(limits, worker="cli")
    except LimitsUnusable:
        return dict.fromkeys((key.id for key in keys), None)
    try:
        return await used_by(limiter, keys)
    finally:
        await limiter.close()


def _show_secret(config_path: Path, stored: StoredKey, secret: str, *, as_json: bool) -> None:
    used = _used(config_path, [stored])[stored.key.id]
    if as_json:
        click.echo(json.dumps(told(stored, used) | {"key": secret}))
    else:
        click.echo(f"{secret}\nThis is {_line(stored, used)}\nThe key itself is not shown again.")


def _line(stored: StoredKey, used: Used) -> str:
    key = stored.key
    ends = [f"created {stored.created_at:%Y-%m-%d}"]
    if key.expires_at is not None:
        ends.append(f"expires {key.expires_at:%Y-%m-%d %H:%M} UTC")
    if stored.revoked_at is not None:
        ends.append(f"revoked {stored.revoked_at:%Y-%m-%d %H:%M} UTC")
    parts = [key.id, key.name, f"tenant {key.tenant}", *_rights(key, used), ", ".join(ends)]
    return "  ".join(parts)


def _rights(key: Key, used: Used) -> Iterator[str]:
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
    spent = {one.window: one for one in used or ()}
    for budget in key.budgets:
        one = spent.get(budget.window)
        if budget.money is not None:
            gone = "-" if one is None else f"{one.money:g}"
            yield f"{budget.money:g} money/{budget.window} ({gone} used)"
        if budget.tokens is not None:
            gone = "-" if one is None else str(one.tokens)
            yield f"{budget.tokens} tokens/{budget.window} ({gone} used)"
