"""What a key is: whose, and what it opens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from gateway.errors import Forbidden, ModelForbidden

Bound = TypeVar("Bound", float, datetime)

_TENANT = re.compile("[!-~]{1,128}")


class Scope(StrEnum):
    """What a key opens."""

    INFERENCE = "inference"  # calls to models, feedback, reading one's own stored completions
    TRAIN = "train"  # what starts training: files, jobs, evaluations
    ADMIN = "admin"  # the tenant's keys, its usage, its erasures


class Window(StrEnum):
    """How long a budget lasts before it begins anew, in calendar units of UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"  # never begins anew


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast a key may go; None: as fast as it can."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and completion together."""
    concurrency: int | None = None
    """Requests under way at once."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may use up in one window."""

    window: Window
    tokens: int | None = None
    money: float | None = None
    """In the currency of the configured prices."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has used up of the window that is running."""

    window: Window
    tokens: int
    money: float
    until: datetime | None
    """When it begins anew; None: never."""


EVERYTHING = frozenset(Scope)
UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Key:
    """Who is calling, and what it may. The secret itself is nowhere in our keeping."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope] = EVERYTHING
    models: frozenset[str] | None = None
    """The names it may put in ``model``; None: any."""
    train: bool = True
    """Whether its calls may be learnt from."""
    limits: Limits = UNLIMITED
    budgets: tuple[Budget, ...] = ()
    expires_at: datetime | None = None
    within: "Key | None" = None
    """The limited key that has made it, and whose limits and budgets it takes of, too."""

    @property
    def is_limited(self) -> bool:
        """Whether anything is counted of its own."""
        return self.limits != UNLIMITED or bool(self.budgets)

    @property
    def counted(self) -> "tuple[Key, ...]":
        """The limited keys that its calls count for: itself first, then its makers."""
        makers = () if self.within is None else self.within.counted
        return (self, *makers) if self.is_limited else makers

    def require(self, scope: Scope) -> None:
        """Raises Forbidden for a scope that it lacks."""
        if scope not in self.scopes:
            raise Forbidden(
                "You have insufficient permissions for this operation. "
                f"Missing scopes: {scope}. This key has: {', '.join(sorted(self.scopes))}."
            )

    def allows(self, model: str) -> bool:
        """Whether it may use this name: whoever may use an alias may use each version of it."""
        models = self.models
        return models is None or model in models or model.partition("@")[0] in models

    def may_use(self, model: str) -> None:
        """Raises ModelForbidden, as OpenAI does, whether there is such a model or not."""
        if not self.allows(model):
            raise ModelForbidden(f"This key does not have access to model `{model}`.")


def tenant_named(name: str) -> str:
    """The same name. Raises ValueError for one that no HTTP header holds, so no key can have."""
    if not _TENANT.fullmatch(name):
        raise ValueError(
            "a tenant's name is 1 to 128 letters, digits and signs of ASCII, without spaces"
        )
    return name


def wider(child: Key, parent: Key) -> list[str]:
    """In what ``child`` may more than ``parent``; nothing when a holder of both gains nothing."""
    return [what for what, is_wider in _compared(child, parent) if is_wider]


def _compared(child: Key, parent: Key) -> Iterator[tuple[str, bool]]:
    yield "tenant", child.tenant != parent.tenant
    yield "scopes", not child.scopes <= parent.scopes
    yield "models", _more_models(child, parent)
    yield "train", child.train and not parent.train
    for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        ours, theirs = getattr(child.limits, name), getattr(parent.limits, name)
        yield f"limits.{name}", _more(ours, theirs)
    yield "budgets", any(not _covered(budget, child) for budget in parent.budgets)
    yield "expires_at", _more(child.expires_at, parent.expires_at)


def _more_models(child: Key, parent: Key) -> bool:
    if parent.models is None:
        return False
    return child.models is None or not all(map(parent.allows, child.models))


def _covered(budget: Budget, child: Key) -> bool:
    """Whether ``child`` has as tight a budget for the same window."""
    return any(
        own.window is budget.window
        and not _more(own.tokens, budget.tokens)
        and not _more(own.money, budget.money)
        for own in child.budgets
    )


def _more(ours: Bound | None, theirs: Bound | None) -> bool:
    """Whether a bound is looser than another; None: no bound."""
    if theirs is None:
        return False
    return ours is None or ours > theirs
