"""Aliases and the adapter versions that answer them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from serving.registry.stage import Stage

DIGEST_IN_NAME = 12
"""Characters of the digest in a served name: enough that no two adapters ever share one."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A model name that clients use; without a live version its base answers."""

    name: str
    base: str
    """Path or hub id of the base model."""
    served_base: str
    """The name under which engines serve that base."""


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One adapter of one alias. Its weights never change; its stage does, by the registry."""

    alias: str
    version: int
    digest: str
    path: Path
    base: str
    rank: int
    stage: Stage
    created_at: datetime
    changed_at: datetime
    """When it entered its stage."""
    lineage: Mapping[str, str]
    """What it was made from: dataset digest, job, parent adapter."""
    verdict_id: str | None = None
    reason: str | None = None
    predecessor: int | None = None
    """The version that was live before it; None before promotion and for the first."""
    answered_until: datetime | None = None
    """When it last stopped answering clients; None while it never did or still does."""

    @property
    def served_name(self) -> str:
        """The engine's name for it; never reused, because it holds the digest."""
        return served_name(self.alias, self.digest)

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.alias} v{self.version}"


@dataclass(frozen=True, slots=True)
class Promotion:
    """An alias moved: who answers now, and who answered before (None: the base)."""

    alias: str
    live: AdapterVersion | None
    previous: AdapterVersion | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """One line of the audit log."""

    alias: str
    version: int
    old: Stage | None
    new: Stage
    at: datetime
    verdict_id: str | None
    reason: str | None


def served_name(alias: str, digest: str) -> str:
    """The name an adapter of ``alias`` has in every engine."""
    return f"{alias}--{digest[:DIGEST_IN_NAME]}"


def tuned_name(served_base: str, alias: str, digest: str) -> str:
    """The name of an adapter in the shape of OpenAI's ``ft:<base>:<org>:<suffix>:<id>``."""
    return f"ft:{served_base}:ratchet:{alias}:{digest[:DIGEST_IN_NAME]}"
