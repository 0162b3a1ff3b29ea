"""What the engines say of themselves, and what the gateway routes by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from serving.registry.adapter import tuned_name
from serving.registry.stage import Stage

STALE_AFTER_S = 10.0
"""An engine that has not reported for this long is not counted on."""


class EngineState(StrEnum):
    """Whether an engine may be sent requests."""

    STARTING = "starting"  # vLLM or its adapters are still loading
    READY = "ready"  # answers, with everything in ``resident`` loaded and probed
    DRAINING = "draining"  # finishes what runs, takes nothing new
    DOWN = "down"  # its process ended; the agent is about to restart it


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine's latest word."""

    engine_id: str
    url: str
    base: str
    """The served name of its base."""
    state: EngineState
    resident: frozenset[str]
    """Served names of the adapters that are loaded, warmed up and probed."""
    at: datetime
    failed: Mapping[str, str] = field(default_factory=dict)
    """Served names that would not load or failed the probe, with the reason."""

    def fresh(self, *, now: datetime, stale_after_s: float = STALE_AFTER_S) -> bool:
        """Whether its agent was alive a moment ago."""
        return now - self.at <= timedelta(seconds=stale_after_s)

    def same_routing(self, other: "EngineReport") -> bool:
        """Whether both say the same but for the time: then nobody needs to read again."""
        return (self.url, self.base, self.state, self.resident, dict(self.failed)) == (
            other.url,
            other.base,
            other.state,
            other.resident,
            dict(other.failed),
        )


@dataclass(frozen=True, slots=True)
class Servable:
    """A version that has passed its gate, so that clients may be answered by it."""

    alias: str
    version: int
    digest: str
    served_name: str
    """The engine's name for it."""
    stage: Stage
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers to a name at one moment. ``adapter`` None: the base does.

    A base that is called by its own name is its own alias.
    """

    alias: str
    base: str
    served_base: str
    adapter: Servable | None = None

    @property
    def target(self) -> str:
        """The model name to send to an engine."""
        return self.adapter.served_name if self.adapter else self.served_base


@dataclass(frozen=True)
class RoutingSnapshot:
    """Everything the gateway routes by, read in one transaction.

    ``engines`` holds only engines whose agent was alive at ``taken_at``, in any state.
    """

    data_version: int
    taken_at: datetime
    routes: Mapping[str, Route]
    engines: tuple[EngineReport, ...]
    versions: tuple[Servable, ...] = ()
    """The versions that may be asked for by name: live, canary or gated, and those that were
    live once and that an engine still holds. The newest of an alias comes first."""

    @cached_property
    def names(self) -> Mapping[str, Route]:
        """Every name that means something: aliases, bases, and versions by both their names.

        Where one name has two meanings, it means the alias.
        """
        bases = {
            route.served_base: Route(route.served_base, route.base, route.served_base)
            for route in self.routes.values()
        }
        return bases | dict(self._version_names()) | dict(self.routes)

    def serving(self, route: Route) -> tuple[EngineReport, ...]:
        """Engines that may answer ``route`` now; empty means 503, never another model."""
        known = self._serving.get(route.target)
        if known is None:
            known = self._serving[route.target] = tuple(
                engine
                for engine in self.engines
                if engine.state is EngineState.READY
                and engine.base == route.served_base
                and (route.adapter is None or route.target in engine.resident)
            )
        return known

    @cached_property
    def _serving(self) -> dict[str, tuple[EngineReport, ...]]:
        return {}

    def _version_names(self) -> Iterator[tuple[str, Route]]:
        for version in self.versions:
            alias = self.routes[version.alias]
            meaning = replace(alias, adapter=version)
            yield f"{version.alias}@v{version.version}", meaning
            yield tuned_name(alias.served_base, version.alias, version.digest), meaning
