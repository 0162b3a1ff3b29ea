"""``/v1/keys``: a tenant's keys, made and ended by its admin keys. None makes a wider one."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from anyio import from_thread
from fastapi import APIRouter, Depends, Request

from gateway.api.body import as_object, checked
from gateway.api.caller import Admin, state_of
from gateway.api.idempotency import HEADER, id_of
from gateway.api.key_shapes import DeletedOut, KeyIn, KeyOut, KeysOut, NewKeyOut, RotationIn
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from gateway.keys import Key, KeyStore, KeyTaken, StoredKey, told, wider
from gateway.limits import Limiter, used_by
from gateway.state import State

router = APIRouter(prefix="/v1/keys")

MAX_COUNTED = 4
"""A call of a key counts for its makers, too: each of them costs as much as a key of its own."""


def _store(state: Annotated[State, Depends(state_of)]) -> KeyStore:
    return state.keys


def _now(request: Request) -> datetime:
    now: Callable[[], datetime] = request.app.state.now
    return now()


async def _new(request: Request, _: Admin) -> KeyIn:
    """Read only for those who may: what anybody sends is not worth the memory."""
    return checked(await as_object(request), KeyIn)


async def _rotation(request: Request, _: Admin) -> RotationIn:
    sent = request.headers
    has_body = sent.get("content-length", sent.get("transfer-encoding", "0")) != "0"
    return checked(await as_object(request), RotationIn) if has_body else RotationIn()


async def _identity(request: Request, caller: Admin) -> str:
    return f"key_{(await id_of(request, caller)).hex}"


def _telling(request: Request) -> Callable[[list[StoredKey]], list[dict[str, Any]]]:
    """Tells keys with what they have used. Blocking; the limiter is the event loop's."""
    limiter: Limiter = request.app.state.limiter

    def tell(keys: list[StoredKey]) -> list[dict[str, Any]]:
        used = from_thread.run(used_by, limiter, [stored.key for stored in keys])
        return [told(stored, used[stored.key.id]) for stored in keys]

    return tell


Store = Annotated[KeyStore, Depends(_store)]
Tell = Annotated[Callable[[list[StoredKey]], list[dict[str, Any]]], Depends(_telling)]
Now = Annotated[datetime, Depends(_now)]


@router.post("", response_model=NewKeyOut)
def create(  # noqa: PLR0913, PLR0917 - what the request says, and whom it is put to
    caller: Admin,
    body: Annotated[KeyIn, Depends(_new)],
    key_id: Annotated[str, Depends(_identity)],
    keys: Store,
    now: Now,
    tell: Tell,
) -> dict[str, Any]:
    """Make a key. Its secret, ``key``, is told this once.

    With an ``Idempotency-Key`` that made one before it is 409: the secret is in nobody's keeping.
    """
    rights = body.rights(caller, at=now)
    end = rights["expires_at"]
    if end is not None and end <= now:
        raise InvalidRequest("That moment is past.", param="expires_at")
    key = Key(key_id, body.name, caller.tenant, **rights)
    _narrow(key, caller, "make")
    if len(key.counted) > MAX_COUNTED:
        raise Forbidden(
            f"This key was made by a key that was made by a key, and so on: {MAX_COUNTED} with "
            "limits or budgets is as far as it goes. Let one of its makers make it."
        )
    try:
        made, secret = keys.create(body.name, tenant=caller.tenant, at=now, key_id=key_id, **rights)
    except KeyTaken as error:
        raise Conflict(
            f"This request, by its {HEADER}, has made {key_id}; its secret was told then. "
            f"If that is lost: POST /v1/keys/{key_id}/rotate tells a new one."
        ) from error
    return tell([StoredKey(made, now)])[0] | {"key": secret}


@router.get("", response_model=KeysOut)
def recent(caller: Admin, keys: Store, tell: Tell) -> dict[str, Any]:
    """All of the tenant's keys that are not revoked, oldest first."""
    data = tell(keys.all(tenant=caller.tenant))
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "first_id": ends[0], "last_id": ends[1]}


@router.get("/{key_id}", response_model=KeyOut)
def get(key_id: str, caller: Admin, keys: Store, tell: Tell) -> dict[str, Any]:
    """What one key may, revoked or not."""
    return tell([_own(keys, key_id, caller)])[0]


@router.delete("/{key_id}", response_model=DeletedOut)
def revoke(key_id: str, caller: Admin, keys: Store, now: Now) -> dict[str, Any]:
    """Make it stop opening, everywhere, within a blink."""
    _own(keys, key_id, caller)
    if not keys.revoke(key_id, at=now):
        raise _unknown(key_id)
    return {"id": key_id}


@router.post("/{key_id}/rotate", response_model=NewKeyOut)
def rotate(  # noqa: PLR0913, PLR0917 - as above
    key_id: str,
    caller: Admin,
    body: Annotated[RotationIn, Depends(_rotation)],
    keys: Store,
    now: Now,
    tell: Tell,
) -> dict[str, Any]:
    """A new secret for it, told this once. Whoever gets it can do no more than the caller."""
    stored = _own(keys, key_id, caller)
    if key_id != caller.id:
        _narrow(stored.key, caller, "rotate")
    secret = keys.rotate(key_id, at=now, grace=body.span)
    if secret is None:
        raise _unknown(key_id)
    return tell([stored])[0] | {"key": secret}


def _own(keys: KeyStore, key_id: str, caller: Key) -> StoredKey:
    """Raises NotFound; another tenant's key is as unknown as none."""
    stored = keys.get(key_id)
    if stored is None or stored.key.tenant != caller.tenant:
        raise _unknown(key_id)
    return stored


def _narrow(key: Key, caller: Key, act: str) -> None:
    if more := wider(key, caller):
        raise Forbidden(
            f"A key cannot {act} a wider one than itself; this one would be in: {', '.join(more)}."
        )


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id} that opens.", param="key_id")
