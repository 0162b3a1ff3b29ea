"""From the model name in a request to the engine that answers it."""

from dataclasses import dataclass

from gateway.errors import ModelNotFound, Unavailable
from serving.registry import RoutingSnapshot


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes. Resolved once; nothing later in the request asks again."""

    alias: str
    model: str
    """The model name the engine is asked for."""
    adapter: str | None
    """The same when an adapter answers; None when the base does."""
    engine_id: str
    url: str


def resolve(snapshot: RoutingSnapshot, model: str) -> Target:
    """The target of ``model`` as of ``snapshot``.

    Raises ModelNotFound for a name that is no alias, and Unavailable when no engine is ready
    with what the alias means now. The base never stands in for a missing adapter.
    """
    route = snapshot.routes.get(model)
    if route is None:
        raise ModelNotFound(
            f"The model `{model}` does not exist. GET /v1/models lists those that do.",
            param="model",
        )
    engines = snapshot.serving(route)
    if not engines:
        raise Unavailable(f"No engine is ready to answer for `{model}` right now. Please retry.")
    engine = engines[0]
    return Target(
        alias=route.alias,
        model=route.target,
        adapter=route.live.served_name if route.live else None,
        engine_id=engine.engine_id,
        url=engine.url,
    )
