"""What a training job tells while it runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


class Level(StrEnum):
    """The levels of OpenAI's fine-tuning events."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Kind(StrEnum):
    """The types of OpenAI's fine-tuning events."""

    MESSAGE = "message"
    METRICS = "metrics"  # ``data`` holds the numbers of one step


@dataclass(frozen=True, slots=True)
class Event:
    """One line of ``events.jsonl``; the names are those of ``fine_tuning.job.event``."""

    created_at: float
    """Seconds since the epoch."""
    message: str
    level: Level = Level.INFO
    kind: Kind = Kind.MESSAGE
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        row = json.loads(line)
        return cls(
            created_at=row["created_at"],
            message=row["message"],
            level=Level(row["level"]),
            kind=Kind(row["type"]),
            data=row["data"],
        )

    def to_json(self) -> str:
        row = {
            "created_at": self.created_at,
            "level": self.level,
            "message": self.message,
            "type": self.kind,
            "data": self.data,
        }
        return json.dumps(row, ensure_ascii=False)
