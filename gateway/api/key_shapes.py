"""Keys on the wire: what is asked for, and what is told."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from gateway.keys import Budget, Key, Rights, Scope, Window

Many = Annotated[int, Field(gt=0, le=2**53)]
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
ModelName = Annotated[str, Field(pattern=r"^\S{1,256}$")]
MAX_GRACE_S = 30 * 86_400
MAX_LIFE_S = 100 * 366 * 86_400


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class LimitsIn(_Wire):
    """How fast the key may go; null: as fast as it can."""

    requests_per_minute: Many | None = None
    tokens_per_minute: Many | None = None
    """Prompt and completion together."""
    concurrency: Many | None = None
    """Requests under way at once."""


class BudgetIn(_Wire):
    """What the key may use up in one calendar window of UTC."""

    window: Window
    tokens: Many | None = None
    money: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """In the currency of the configured prices."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.tokens is None and self.money is None:
            raise ValueError("a budget needs tokens, money, or both")
        return self


class KeyIn(_Wire):
    """A new key. What is left out is as its maker's, but for ``scopes``."""

    name: Name
    """For people; not unique."""
    scopes: Annotated[list[Scope], Field(min_length=1)] = [Scope.INFERENCE]
    models: list[ModelName] | None = None
    """The names it may put in ``model``; null: any."""
    train: bool = True
    """Whether its calls may be learnt from."""
    limits: LimitsIn = LimitsIn()
    budgets: Annotated[list[BudgetIn], Field(max_length=20)] = []
    expires_at: AwareDatetime | None = None
    """Unix seconds, or ISO 8601 with a time zone; null: never."""
    expires_in: Annotated[int, Field(gt=0, le=MAX_LIFE_S)] | None = None
    """Or in so many seconds."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_at is not None and self.expires_in is not None:
            raise ValueError("give either expires_at or expires_in")
        return self

    def rights(self, maker: Key, *, at: datetime) -> Rights:
        """What it asks for, and what it leaves to its maker's own."""
        said = self.model_fields_set
        models, end = self.models, self.expires_at
        if self.expires_in is not None:
            end = at + timedelta(seconds=self.expires_in)
        elif "expires_at" not in said:
            end = maker.expires_at
        budgets = tuple(Budget(**budget.model_dump()) for budget in self.budgets)
        return Rights(
            scopes=frozenset(self.scopes),
            models=maker.models if "models" not in said else _names(models),
            train=self.train if "train" in said else maker.train,
            limits=replace(maker.limits, **self.limits.model_dump(exclude_unset=True)),
            budgets=budgets if "budgets" in said else maker.budgets,
            expires_at=end,
            within=maker if maker.is_limited else maker.within,
        )


class RotationIn(_Wire):
    """A new secret for a key."""

    grace: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0
    """For so many seconds the old secret opens, too."""

    @property
    def span(self) -> timedelta:
        return timedelta(seconds=self.grace)


class LimitsOut(BaseModel):
    """As they apply; null: none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None


class BudgetOut(BaseModel):
    """As it applies."""

    window: Window
    tokens: int | None
    money: float | None


class UsedOut(BaseModel):
    """What is used up of the window that is running."""

    window: Window
    tokens: int
    money: float
    until: int | None
    """When it begins anew; null: never."""


class KeyOut(BaseModel):
    """A key, without its secret."""

    object: str = "key"
    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    models: list[str] | None
    train: bool
    limits: LimitsOut
    budgets: list[BudgetOut]
    used: list[UsedOut] | None
    """Of the budgets, a window each; null: it cannot be told right now."""
    within: str | None
    """The key that made it, whose limits and budgets it takes of, too; null: none."""
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class NewKeyOut(KeyOut):
    """A key with its secret, the one time that it is told."""

    key: str


class KeysOut(BaseModel):
    """All of a tenant's keys, oldest first."""

    object: str = "list"
    data: list[KeyOut]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


class DeletedOut(BaseModel):
    """A key that no longer opens."""

    object: str = "key.deleted"
    id: str
    deleted: bool = True


def _names(models: list[str] | None) -> frozenset[str] | None:
    return None if models is None else frozenset(models)
