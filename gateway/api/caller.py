"""Who calls, for the endpoints that are not the hot path."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.keys import Key, Scope
from gateway.state import State


def state_of(request: Request) -> State:
    """The worker's state."""
    state: State = request.app.state.gateway
    return state


def known(request: Request, state: Annotated[State, Depends(state_of)]) -> Key:
    """The key of the request, whatever it may. Raises Unauthorized."""
    return state.key(dict(request.scope["headers"]))


def caller(key: Annotated[Key, Depends(known)]) -> Key:
    """A key that may call models. Raises Unauthorized, Forbidden."""
    key.require(Scope.INFERENCE)
    return key


def admin(key: Annotated[Key, Depends(known)]) -> Key:
    """A key that may do what concerns the whole tenant. Raises Unauthorized, Forbidden."""
    key.require(Scope.ADMIN)
    return key


Known = Annotated[Key, Depends(known)]
Caller = Annotated[Key, Depends(caller)]
Admin = Annotated[Key, Depends(admin)]
