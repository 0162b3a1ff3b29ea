"""A key as people and programs are told of it, over HTTP and at the command line."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from gateway.keys.store import StoredKey


def told(stored: StoredKey) -> dict[str, Any]:
    """Everything but its secret, as JSON; moments in Unix seconds."""
    key = stored.key
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "train": key.train,
        "limits": asdict(key.limits),
        "budgets": [asdict(budget) for budget in key.budgets],
        "within": None if key.within is None else key.within.id,
        "created_at": _seconds(stored.created_at),
        "expires_at": _seconds(key.expires_at),
        "revoked_at": _seconds(stored.revoked_at),
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
