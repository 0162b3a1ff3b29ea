"""``GET /v1/models``: the aliases, in OpenAI's list."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from gateway.api.caller import Caller, state_of
from gateway.errors import ModelNotFound
from gateway.state import State
from serving.registry import Route

router = APIRouter()


@router.get("/v1/models")
async def list_models(_: Caller, state: Annotated[State, Depends(state_of)]) -> dict[str, Any]:
    """Every alias."""
    routes = state.snapshot.routes.values()
    return {"object": "list", "data": [_model(route) for route in routes]}


@router.get("/v1/models/{name:path}")
async def get_model(
    name: str, _: Caller, state: Annotated[State, Depends(state_of)]
) -> dict[str, Any]:
    """One alias."""
    route = state.snapshot.routes.get(name)
    if route is None:
        raise ModelNotFound(f"The model `{name}` does not exist.", param="model")
    return _model(route)


def _model(route: Route) -> dict[str, Any]:
    live = route.adapter
    return {
        "id": route.alias,
        "object": "model",
        "created": 0,
        "owned_by": "ratchet",
        "parent": route.served_base,
        "adapter": live.served_name if live else None,
        "adapter_version": live.version if live else None,
    }
