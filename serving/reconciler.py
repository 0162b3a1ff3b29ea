"""The engine's adapters are brought to the registry's wish, each load checked and probed."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from serving.artifact import PROBE, verify
from serving.errors import ArtifactInvalid, EngineRefused, ProbeFailed
from serving.probe import Scores, probe, read_reference
from serving.registry import AdapterVersion

log = logging.getLogger(__name__)


class Adapters(Scores, Protocol):
    """What reconciling needs of an engine; every method raises EngineError."""

    async def resident(self) -> frozenset[str]:
        """Names of the adapters the engine knows."""
        ...

    async def load(self, name: str, path: Path) -> None:
        """Register an adapter directory under a name."""
        ...

    async def unload(self, name: str) -> None:
        """Forget an adapter."""
        ...


@dataclass(frozen=True, slots=True)
class Residence:
    """What one run of one engine has shown; a restarted engine starts with an empty one."""

    proven: frozenset[str] = frozenset()
    """Served names that are loaded, warmed up and behave as themselves."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Served names that would not load or failed the probe, with the reason. Not tried again
    in this run: nothing about them can have changed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The moves that make the engine hold what is wanted, in the order they are made."""

    unload: tuple[str, ...]
    load: tuple[AdapterVersion, ...]
    prove: tuple[AdapterVersion, ...]
    """Loaded or about to be, but not yet seen to work."""
    left_out: tuple[AdapterVersion, ...] = ()
    """Wanted, but beyond what the engine can hold: the least important ones."""


def plan(
    wanted: Sequence[AdapterVersion],
    loaded: Collection[str],
    residence: Residence,
    *,
    capacity: int,
) -> Plan:
    """The moves from ``loaded`` to ``wanted`` (most important first); empty when they agree."""
    possible = [version for version in wanted if version.served_name not in residence.failed]
    kept, left_out = possible[:capacity], possible[capacity:]
    names = {version.served_name for version in kept}
    proven = residence.proven & set(loaded)
    return Plan(
        unload=tuple(sorted(set(loaded) - names)),
        load=tuple(version for version in kept if version.served_name not in loaded),
        prove=tuple(version for version in kept if version.served_name not in proven),
        left_out=tuple(left_out),
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What stays the same from one reconciling of an engine to the next."""

    base: str
    """The served name of its base."""
    prompt: tuple[int, ...]
    """What a probe asks when the trainer left no reference."""
    capacity: int
    """How many adapters the engine can know."""


async def reconcile(
    engine: Adapters, wanted: Sequence[AdapterVersion], residence: Residence, terms: Terms
) -> Residence:
    """Load, prove and unload until the engine holds what is wanted. Safe to repeat.

    A bad adapter ends up in ``failed`` and does not stop the others. EngineUnavailable when
    the engine does not answer; what it had shown until then is to be proven again.
    """
    loaded = await engine.resident()
    moves = plan(wanted, loaded, residence, capacity=terms.capacity)
    for version in moves.left_out:
        log.warning("%s is wanted, but the engine is full: raise max_cpu_loras", version.label)
    for name in moves.unload:
        await engine.unload(name)
        log.info("unloaded %s", name)
    residence = replace(residence, proven=residence.proven & loaded - set(moves.unload))
    to_load = {version.served_name for version in moves.load}
    for version in moves.prove:
        name = version.served_name
        try:
            await _admit(engine, version, terms, load=name in to_load)
        except (ArtifactInvalid, EngineRefused, ProbeFailed) as error:
            log.error("%s is refused: %s", version.label, error)  # noqa: TRY400 - no bug of ours
            residence = replace(residence, failed={**residence.failed, name: str(error)})
        else:
            residence = replace(residence, proven=residence.proven | {name})
    return residence


async def _admit(engine: Adapters, version: AdapterVersion, terms: Terms, *, load: bool) -> None:
    name = version.served_name
    if load:
        artifact = await asyncio.to_thread(verify, version.path)
        if artifact.digest != version.digest:
            raise ArtifactInvalid(f"{version.path} holds {artifact.digest}, not {version.digest}")
        await engine.load(name, version.path)
    try:
        await probe(
            engine,
            base=terms.base,
            adapter=name,
            reference=read_reference(version.path / PROBE),
            prompt=terms.prompt,
        )
    except (EngineRefused, ProbeFailed):
        await engine.unload(name)
        raise
    log.info("%s is resident as %s", version.label, name)
