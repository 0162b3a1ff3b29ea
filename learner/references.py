"""Whether what ``ratchet.yaml`` names is there: models, files. Said before anything starts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import CostMapInvalid
from gateway.model import PythonGuard
from gateway.prices import Prices
from learner.errors import ConfigError
from learner.sections import ModelSection, served_base

if TYPE_CHECKING:
    from learner.settings import RatchetConfig

_VERSION = re.compile(r"(?P<alias>[^@]+)@v[1-9][0-9]*")
_TUNED = re.compile(r"ft:(?P<base>.+):ratchet:(?P<alias>[^:]+):[0-9a-f]{12}")


def checked(config: "RatchetConfig") -> "RatchetConfig":
    """The same, its paths absolute. Raises ConfigError that says where something is missing."""
    for where, name in _names(config.models):
        if not _means_something(name, config.models):
            raise ConfigError(
                f"{where}: nothing is called {name!r}; it must be an alias of `models`, one of "
                "its versions (alias@v7, ft:...), or a base by the name it is served under"
            )
    _no_loops(config.models)
    for where, file in _files(config):
        if not file.is_file():
            raise ConfigError(f"{where}: there is no file {file}")
    try:
        Prices({}, config.gateway.cost_map)
    except CostMapInvalid as error:
        raise ConfigError(f"gateway.cost_map: {error}") from error
    return config


def _names(models: Sequence[ModelSection]) -> Iterator[tuple[str, str]]:
    """Every name that a model says of others, and where."""
    for number, model in enumerate(models):
        for index, arm in enumerate(model.arms):
            yield f"models.{number}.arms.{index}.to", arm.to
        for index, fallback in enumerate(model.fallbacks):
            yield f"models.{number}.fallbacks.{index}", fallback
        if model.shadow:
            yield f"models.{number}.shadow.to", model.shadow.to


def _means_something(name: str, models: Sequence[ModelSection]) -> bool:
    bases = {model.alias: model.base and served_base(model.base) for model in models}
    if name in bases or name in bases.values():
        return True
    if version := _VERSION.fullmatch(name):
        return bases.get(version["alias"]) is not None
    tuned = _TUNED.fullmatch(name)
    return tuned is not None and bases.get(tuned["alias"]) == tuned["base"]


def _no_loops(models: Sequence[ModelSection]) -> None:
    """Raise ConfigError for a name that stands in for itself."""
    for number, model in enumerate(models):
        named = [arm.to for arm in model.arms] + ([model.shadow.to] if model.shadow else [])
        if model.alias in named:
            raise ConfigError(f"models.{number}: {model.alias} is its own arm or shadow")
    chains = {model.alias: model.fallbacks for model in models}
    for number, model in enumerate(models):
        if loop := _loop(model.alias, chains, ()):
            way = " -> ".join(loop)
            raise ConfigError(f"models.{number}.fallbacks: they lead back to themselves: {way}")


def _loop(
    name: str, chains: Mapping[str, Sequence[str]], path: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The way from a name back to itself; None when there is none."""
    if name in path:
        return (*path[path.index(name) :], name)
    ways = (_loop(after, chains, (*path, name)) for after in chains.get(name, ()))
    return next(filter(None, ways), None)


def _files(config: "RatchetConfig") -> Iterator[tuple[str, Path]]:
    if config.gateway.cost_map:
        yield "gateway.cost_map", config.gateway.cost_map
    for number, model in enumerate(config.models):
        for when, guards in (("before", model.guards.before), ("after", model.guards.after)):
            for index, guard in enumerate(guards):
                if isinstance(guard, PythonGuard):
                    yield f"models.{number}.guards.{when}.{index}.file", guard.file
