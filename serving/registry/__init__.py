"""Aliases, adapter versions and their stages, and the engines that serve them: the front door."""

from serving.errors import NotResident, StaleStage, UnknownAlias, UnknownVersion
from serving.registry.adapter import (
    AdapterVersion,
    Alias,
    Move,
    Promotion,
    served_name,
    tuned_name,
)
from serving.registry.clock import start_clock, touch
from serving.registry.fleet import (
    STALE_AFTER_S,
    EngineReport,
    EngineState,
    Route,
    RoutingSnapshot,
    Servable,
)
from serving.registry.stage import MOVES, Stage
from serving.registry.store import Registry

__all__ = [
    "MOVES",
    "STALE_AFTER_S",
    "AdapterVersion",
    "Alias",
    "EngineReport",
    "EngineState",
    "Move",
    "NotResident",
    "Promotion",
    "Registry",
    "Route",
    "RoutingSnapshot",
    "Servable",
    "Stage",
    "StaleStage",
    "UnknownAlias",
    "UnknownVersion",
    "served_name",
    "start_clock",
    "touch",
    "tuned_name",
]
