"""The names that ``model`` may say, as ``GET /v1/models`` lists them."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.model import ModelOptions
from gateway.routing import unknown
from serving.registry import RoutingSnapshot, Stage, tuned_name


@dataclass(frozen=True, slots=True)
class Name:
    """One name, and what it means now."""

    id: str
    parent: str | None
    """The base, where an adapter or an alias of it is meant; None for a base or a provider's."""
    owned_by: str = "ratchet"
    """A provider's models are its own."""
    adapter: str | None = None
    """The adapter that answers, by its name in the engine."""
    version: int | None = None
    stage: Stage | None = None
    tuned: str | None = None
    """The adapter's ``ft:...`` name."""
    created: int = 0
    """When the adapter was made, in Unix seconds; 0 for what is no adapter."""


def names(snapshot: RoutingSnapshot, models: Mapping[str, ModelOptions]) -> tuple[Name, ...]:
    """Every name once, by name. The ``ft:...`` names are left out: they mean no further models."""
    known = {name for name in snapshot.names if not name.startswith("ft:")}
    known |= {name for name, options in models.items() if options.provider}
    return tuple(named(snapshot, models, name) for name in sorted(known))


def named(snapshot: RoutingSnapshot, models: Mapping[str, ModelOptions], name: str) -> Name:
    """What one name means. Raises ModelNotFound when it means nothing."""
    options = models.get(name)
    if options is not None and options.provider is not None:
        return Name(name, parent=None, owned_by=options.provider.name)
    route = snapshot.names.get(name)
    if route is None:
        raise unknown(snapshot, name)
    parent = None if name == route.served_base else route.served_base
    if route.adapter is None:
        return Name(name, parent)
    adapter = route.adapter
    return Name(
        name,
        parent,
        adapter=adapter.served_name,
        version=adapter.version,
        stage=adapter.stage,
        tuned=tuned_name(route.served_base, adapter.alias, adapter.digest),
        created=int(adapter.created_at.timestamp()),
    )


def answerable(snapshot: RoutingSnapshot, models: Mapping[str, ModelOptions]) -> Mapping[str, bool]:
    """Whether each alias can be answered now. A provider's model needs no engine."""
    providers = {name: True for name, options in models.items() if options.provider}
    engines = {alias: bool(snapshot.serving(route)) for alias, route in snapshot.routes.items()}
    return engines | providers
