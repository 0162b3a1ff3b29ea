"""A turn somebody is working on."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from learner.jobs.store import TurnStore
from learner.jobs.turn import Phase, Turn, TurnState

logger = logging.getLogger(__name__)


class Work:
    """Holds the turn as last saved. Every change is written before the work goes on.

    Raises IllegalMove, from any method that saves, once another learner has taken the turn over.
    """

    def __init__(self, turn: Turn, store: TurnStore, *, now: Callable[[], datetime]) -> None:
        self.turn = turn
        self._store = store
        self._now = now

    def enter(self, phase: Phase) -> None:
        """The next phase begins."""
        self._save(replace(self.turn, phase=phase, changed_at=self._now()))

    def dataset(self, path: str) -> None:
        """The turn learns from this snapshot, also when it is resumed."""
        self._save(replace(self.turn, dataset=path, changed_at=self._now()))

    def verdict(self, version: int, verdict: Mapping[str, Any]) -> None:
        """The gate has spoken about this version. Nothing may move before this is written."""
        self._save(replace(self.turn, version=version, verdict=verdict, changed_at=self._now()))

    def end(self, state: TurnState, *, error: str | None = None) -> None:
        """The turn is over."""
        self._save(self.turn.to(state, at=self._now(), error=error))

    def say(
        self, message: str, *, level: str = "info", data: Mapping[str, Any] | None = None
    ) -> None:
        """Add to the turn's history."""
        logger.info("turn %s, %s: %s", self.turn.id, self.turn.phase, message)
        self._store.log(self.turn, message, at=self._now(), level=level, data=data)

    def _save(self, turn: Turn) -> None:
        self._store.save(turn, expected=self.turn)
        self.turn = turn
