"""What the engines say of themselves, and what the gateway routes by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

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
class LiveAdapter:
    """The adapter that answers an alias."""

    served_name: str
    digest: str
    version: int


@dataclass(frozen=True, slots=True)
class Route:
    """What an alias means at one moment. ``live`` None: the base answers."""

    alias: str
    base: str
    served_base: str
    live: LiveAdapter | None

    @property
    def target(self) -> str:
        """The model name to send to an engine."""
        return self.live.served_name if self.live else self.served_base


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """Everything the gateway routes by, read in one transaction.

    ``engines`` holds only engines whose agent was alive at ``taken_at``, in any state.
    """

    data_version: int
    taken_at: datetime
    routes: Mapping[str, Route]
    engines: tuple[EngineReport, ...]

    def serving(self, route: Route) -> tuple[EngineReport, ...]:
        """Engines that may answer ``route`` now; empty means 503, never another model."""
        return tuple(
            engine
            for engine in self.engines
            if engine.state is EngineState.READY
            and engine.base == route.served_base
            and (route.live is None or route.live.served_name in engine.resident)
        )
