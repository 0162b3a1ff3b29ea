"""A key as people and programs are told of it, over HTTP and at the command line."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from gateway.keys.key import Spent
from gateway.keys.store import StoredKey


def told(stored: StoredKey, used: Iterable[Spent] | None) -> dict[str, Any]:
    """Everything but its secret, as JSON; moments in Unix seconds.

    ``used`` is of its budgets, a window each; None: nobody can say.
    """
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
        "used": None if used is None else [_used(spent) for spent in used],
        "within": None if key.within is None else key.within.id,
        "created_at": _seconds(stored.created_at),
        "expires_at": _seconds(key.expires_at),
        "revoked_at": _seconds(stored.revoked_at),
    }


def _used(spent: Spent) -> dict[str, Any]:
    return asdict(spent) | {"until": _seconds(spent.until)}


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
