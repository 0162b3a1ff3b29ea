"""What a training job writes down while it runs."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.launch.event import Event, Kind, Level


class Journal:
    """Appends events to ``events.jsonl``, each one whole and at once readable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, message: str, *, level: Level = Level.INFO) -> None:
        self._append(Event(time.time(), message, level))

    def metrics(self, message: str, data: Mapping[str, Any]) -> None:
        """Report one step; values that are not known are left out by the caller."""
        self._append(Event(time.time(), message, Level.INFO, Kind.METRICS, data))

    def _append(self, event: Event) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(event.to_json() + "\n")
