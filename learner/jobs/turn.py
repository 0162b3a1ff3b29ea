"""One turn of a policy: its states and the moves between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from learner.errors import IllegalMove


class TurnState(StrEnum):
    """How a turn stands."""

    RUNNING = "running"  # somebody works on it, or died doing so and it will be taken up again
    PROMOTED = "promoted"  # the candidate passed the gate and the alias moved to it
    REJECTED = "rejected"  # the candidate is not good enough, surely
    INCONCLUSIVE = "inconclusive"  # too few held-out samples to tell
    FAILED = "failed"  # something broke; the alias stays where it is


END = frozenset(TurnState) - {TurnState.RUNNING}

MOVES: Mapping[TurnState, frozenset[TurnState]] = {
    TurnState.RUNNING: END,
    **dict.fromkeys(END, frozenset[TurnState]()),
}


class Phase(StrEnum):
    """What a running turn is at, in this order."""

    DATASET = "dataset"
    SFT = "sft"
    RFT = "rft"
    EVALUATE = "evaluate"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as the table holds it."""

    id: str
    alias: str
    state: TurnState
    phase: Phase
    trigger: str
    """Why it started, in words."""
    started_at: datetime
    changed_at: datetime
    watermark: datetime
    """It learns from what was in the log up to here."""
    attempt: int = 1
    """Counts the learners that worked on it; also the fence against an older one."""
    dataset: str | None = None
    """Path of its snapshot."""
    version: int | None = None
    """The adapter version it made."""
    verdict: Mapping[str, Any] | None = None
    error: str | None = None

    def to(self, state: TurnState, *, at: datetime, error: str | None = None) -> Self:
        """The turn, ended. Raises IllegalMove."""
        if state not in MOVES[self.state]:
            raise IllegalMove(f"turn {self.id}: {self.state} -> {state}")
        return replace(self, state=state, changed_at=at, error=error)
