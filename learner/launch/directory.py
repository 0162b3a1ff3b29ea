"""Where a training job keeps its things."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.launch.event import Event


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """The layout of one job's directory.

    ``DONE`` and ``FAILED`` are written last and whole: whoever sees one can trust the rest.
    """

    path: Path

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def adapter(self) -> Path:
        """The trained adapter; complete once ``done`` exists."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        """Adapters of single steps, while the engine samples from them."""
        return self.path / "rollouts"

    @property
    def events(self) -> Path:
        """One JSON object per line (``Event``)."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that trains here."""
        return self.path / "lock"

    @property
    def done(self) -> Path:
        """JSON: steps, seconds, metrics of the end."""
        return self.path / "DONE"

    @property
    def failed(self) -> Path:
        """One line that says why."""
        return self.path / "FAILED"

    def result(self) -> Mapping[str, Any] | None:
        """What ``DONE`` says; None until the job is done."""
        if not self.done.exists():
            return None
        result: Mapping[str, Any] = json.loads(self.done.read_text())
        return result

    def read_events(self, offset: int = 0) -> Iterator[tuple[Event, int]]:
        """Whole events from byte ``offset`` on, each with the offset that follows it."""
        if not self.events.exists():
            return
        with self.events.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield Event.from_json(line), offset


def write_whole(path: Path, text: str) -> None:
    """Write ``path`` so that a reader sees all of it or nothing, also after a crash."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
