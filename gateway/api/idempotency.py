"""``Idempotency-Key`` over HTTP: what a request makes has the same id however often it is sent.

The first of them counts, whatever the others say. Without the header every request is its own.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from fastapi import Request

from gateway.errors import InvalidRequest
from gateway.keys import Key
from gateway.log.record import new_id
from gateway.state import State

HEADER = "idempotency-key"

MAX_LENGTH = 255


async def id_of(request: Request, key: Key) -> UUID:
    """The id of what this request makes."""
    given = request.headers.get(HEADER)
    return new_id() if given is None else await asyncio.to_thread(same_id, request, key, given)


def same_id(request: Request, key: Key, given: str) -> UUID:
    """The same, blocking, for a request that can be sent again. Raises InvalidRequest."""
    if not 1 <= len(given) <= MAX_LENGTH:
        raise InvalidRequest(f"An Idempotency-Key has 1 to {MAX_LENGTH} characters.")
    state: State = request.app.state.gateway
    now: Callable[[], datetime] = request.app.state.now
    what = f"{request.method} {request.url.path}"
    return state.once.id(what, tenant=key.tenant, key=given, new=new_id(), at=now())
