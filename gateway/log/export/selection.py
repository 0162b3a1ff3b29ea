"""Which rows go out, and from where they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from gateway.log.filter import Condition


class Source(Protocol):
    """The log: its store, or a running learner that owns it."""

    def batches(
        self, sql: str, parameters: Sequence[Any] = (), *, rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """The answer to a SELECT, in constant memory. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """A tenant's invocations of which a condition holds."""

    tenant: str
    condition: Condition

    def where(self, *more: str) -> Condition:
        """What follows WHERE, over ``invocations i``."""
        own = Condition("i.tenant = ?", [self.tenant])
        return Condition.all([own, self.condition, *(Condition(text, []) for text in more)])

    @property
    def everything(self) -> bool:
        """Whether nothing of the tenant's is left out."""
        return self.condition == Condition.all([])
