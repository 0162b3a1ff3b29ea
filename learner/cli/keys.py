"""``ratchet keys``."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.keys import KeyStore
from learner.errors import LearnerError
from learner.settings import load
from serving.database import open_database


def create(config_path: Path, name: str, tenant: str, *, as_json: bool) -> None:
    """Print a new key, the one time it can be."""
    key, secret = _store(config_path).create(name, tenant=tenant, at=datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({"id": key.id, "name": name, "tenant": tenant, "key": secret}))
    else:
        click.echo(f"{secret}\nThis is {key.id}. It is not shown again.")


def show_all(config_path: Path, *, as_json: bool) -> None:
    """Print the keys that open."""
    keys = _store(config_path).active().values()
    rows = [{"id": key.id, "name": key.name, "tenant": key.tenant} for key in keys]
    if as_json:
        click.echo(json.dumps(rows))
    for row in () if as_json else rows:
        click.echo(f"{row['id']}  {row['name']}  (tenant {row['tenant']})")


def revoke(config_path: Path, key_id: str) -> None:
    """Revoke one key. Raises LearnerError when there is no such key."""
    if not _store(config_path).revoke(key_id, at=datetime.now(UTC)):
        raise LearnerError(f"there is no key {key_id} that opens; `ratchet keys list` shows them")
    click.echo(f"{key_id} no longer opens")


def _store(config_path: Path) -> KeyStore:
    return KeyStore(open_database(load(config_path).database))
