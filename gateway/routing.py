"""From the model name in a request to who shall answer it, and in which order they are asked."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import msgspec

from gateway.errors import ModelNotFound, Unavailable
from gateway.fleet import Fleet
from gateway.model import Arm, ModelOptions, Provider, Shadow
from serving.registry import EngineState, Route, RoutingSnapshot

INCUMBENT = "incumbent"
PINNED = "pinned"
"""The arm of a call that named its version: no draw decided, so it tells nothing of the arms."""

_NO_OPTIONS = ModelOptions()
_KEY_BYTES = 64
_POINTS = 1 << 64

# Structs, because a call makes several: a frozen dataclass takes five times as long to make.


class Target(msgspec.Struct, frozen=True, gc=False):
    """Somebody who can answer one request."""

    alias: str
    """The name whose model this is; for a fallback, or an arm that is another alias, not the
    name that was asked for."""
    model: str
    """The model name the engine or the provider is asked for."""
    adapter: str | None
    """The same when an adapter answers; None when a base does."""
    version: int | None
    """The adapter's."""
    engine_id: str
    """For a provider, litellm's name of the model."""
    url: str
    """Empty for a provider."""
    provider: Provider | None = None
    timeout_s: float | None = None
    """How long its answer may take; None: as long as the gateway's setting says."""
    fallback: bool = False
    """Whether it is asked only because who should have answered cannot."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Who shall answer one request. Made once; nothing later in the request asks again."""

    alias: str
    """What the call is logged under."""
    arm: str
    """Who was drawn to answer."""
    propensity: float
    """How probable that was."""
    targets: tuple[Target, ...]
    """In the order to try, before the first byte; at least one."""
    shadow: Target | None = None
    """Who answers as well, unheard."""


def plan(
    snapshot: RoutingSnapshot,
    name: str,
    *,
    models: Mapping[str, ModelOptions],
    sticky: bytes | None,
    fleet: Fleet,
) -> Plan:
    """Who answers a call for ``name`` now.

    ``sticky`` binds calls to one arm and, where load allows, to one engine; None binds nothing.
    An arm that nobody can answer for is stood in for by the incumbent, as a fallback. The base
    never stands in for a missing adapter unless it is configured so. Raises ModelNotFound for a
    name that means nothing, and Unavailable when nobody can answer now.
    """
    asking = _Asking(snapshot, models, fleet, sticky)
    options = models.get(name)
    if options is None or not (
        options.provider or options.arms or options.shadow or options.fallbacks
    ):  # a plain alias, a version or a base
        route = snapshot.names.get(name)
        if route is None:
            raise unknown(snapshot, name)
        targets = asking.engines(route)
        if not targets:
            raise _nobody(snapshot, name)
        return Plan(route.alias, INCUMBENT if route.alias == name else PINNED, 1.0, targets)
    if options.provider is None and name not in snapshot.names:
        raise unknown(snapshot, name)
    return asking.drawn(name, options)


class _Asking(msgspec.Struct, frozen=True, gc=False):
    """One call for a name, on its way to a plan."""

    snapshot: RoutingSnapshot
    models: Mapping[str, ModelOptions]
    fleet: Fleet
    sticky: bytes | None

    def drawn(self, name: str, options: ModelOptions) -> Plan:
        """The plan for a name with options of its own."""
        drawn, shadow = None, None
        if options.arms or options.shadow:
            sticky = self.sticky or self.fleet.fresh()
            drawn = draw(options.arms, _point(name, sticky))
            shadow = self._shadow(options.shadow, _point(f"shadow of {name}", sticky))
        targets = self.targets(name, fallback=drawn is not None)
        if drawn is not None:
            targets = self.targets(drawn.to) + targets
        if options.fallbacks:
            targets += tuple(self._chain(options, {name}))
        if not targets:
            raise _nobody(self.snapshot, name)
        if any(target.fallback for target in targets):
            # Who does not answer comes last: retries are few, and a fallback waits for them.
            benched = self.fleet.benched
            targets = tuple(sorted(targets, key=lambda target: benched(target.engine_id)))
        if drawn is not None:
            return Plan(name, drawn.name, drawn.weight, targets, shadow)
        left = 1.0 - sum(arm.weight for arm in options.arms)
        return Plan(name, INCUMBENT, left, targets, shadow)

    def targets(self, name: str, *, fallback: bool = False) -> tuple[Target, ...]:
        """Who can answer to ``name`` itself, whatever its arms; nobody for an unknown name."""
        options = self.models.get(name)
        if options is not None and options.provider is not None:
            there, limit = options.provider, options.timeout_s
            model = there.model
            return (Target(name, model, None, None, model, "", there, limit, fallback),)
        route = self.snapshot.names.get(name)
        return () if route is None else self.engines(route, fallback=fallback)

    def engines(self, route: Route, *, fallback: bool = False) -> tuple[Target, ...]:
        """The engines that can answer for ``route``, in the order to try."""
        alias, model, adapter, version = route.alias, route.target, None, None
        if route.adapter is not None:
            adapter, version = model, route.adapter.version
        options = self.models.get(alias)
        limit = None if options is None else options.timeout_s
        ready = self.fleet.order(self.snapshot.serving(route), model, self.sticky)
        return tuple(
            [
                Target(alias, model, adapter, version, it.engine_id, it.url, None, limit, fallback)
                for it in ready
            ]
        )

    def _chain(self, options: ModelOptions, seen: set[str]) -> Iterator[Target]:
        """The fallbacks and theirs, each name once."""
        for name in options.fallbacks:
            if name not in seen:
                seen.add(name)
                yield from self.targets(name, fallback=True)
                yield from self._chain(self.models.get(name, _NO_OPTIONS), seen)

    def _shadow(self, shadow: Shadow | None, point: float) -> Target | None:
        if shadow is None or point >= shadow.share:
            return None
        return next(iter(self.targets(shadow.to)), None)


def draw(arms: Sequence[Arm], point: float) -> Arm | None:
    """The arm that ``point``, of [0, 1], falls into; None for the incumbent.

    The first arm grows from below, the others hang one under the other from above: raising the
    weight of the first, or of the last, moves traffic from the incumbent into it and nothing
    else.
    """
    if not arms:
        return None
    if point < arms[0].weight:
        return arms[0]
    top = 1.0
    for arm in arms[1:]:
        top -= arm.weight
        if point >= top:
            return arm
    return None


def _point(of: str, sticky: bytes) -> float:
    digest = blake2b(sticky, key=of.encode()[:_KEY_BYTES], digest_size=8).digest()
    return int.from_bytes(digest) / _POINTS


def unknown(snapshot: RoutingSnapshot, name: str) -> ModelNotFound:
    """What is said of a name that means nothing."""
    alias, at, _ = name.partition("@v")
    reason = "GET /v1/models lists those that do."
    if (at and alias in snapshot.routes) or name.startswith("ft:"):
        reason = (
            "A version can be asked for once it has passed its gate, while an engine holds it; "
            "GET /v1/models lists those."
        )
    return ModelNotFound(f"The model `{name}` does not exist. {reason}", param="model")


def _nobody(snapshot: RoutingSnapshot, name: str) -> Unavailable:
    route = snapshot.names[name]
    engines = [engine for engine in snapshot.engines if engine.base == route.served_base]
    if not any(engine.state is EngineState.READY for engine in engines):
        why = "none that serves its base is ready"
    else:
        why = f"none has loaded {route.target} yet"
    return Unavailable(
        f"No engine can answer for `{name}` right now: {why}. Please retry.", retry_after_s=1.0
    )
