"""What was acknowledged, and what the log says of it."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gateway.log.store import Store

STORED = """
SELECT id::VARCHAR AS id, split_part(request->>'$.messages[0].content', ' ', 1) AS mark
  FROM invocations
UNION ALL SELECT id::VARCHAR, explanation FROM feedback
"""


class Acks:
    """One process' acknowledgements: an id and the mark its row must bear, a line each.

    A line is one ``write()``: it survives the process, like the record it speaks of.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def acknowledge(self, record_id: object, mark: str) -> None:
        """Only after the record is promised to be in the log."""
        os.write(self._fd, f"{record_id} {mark}\n".encode())

    def close(self) -> None:
        os.close(self._fd)


def acknowledged(folder: Path) -> dict[str, str]:
    """The marks by id of every ``Acks`` in ``folder``; a line its writer died in is no promise."""
    marks: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        whole = file.read_text().rpartition("\n")[0]
        for line in whole.splitlines():
            record_id, _, mark = line.partition(" ")
            marks[record_id] = mark
    return marks


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the log compares with what was acknowledged."""

    acked: int
    stored: int
    lost: tuple[str, ...]
    """Acknowledged, and absent or with another's mark."""
    doubled: int
    """Rows too many of an id."""
    unacked: int
    """Stored, but the kill came between the write and the acknowledgement."""

    @classmethod
    def of(cls, marks: Mapping[str, str], store: Store) -> Self:
        """Compare ``marks`` with what ``store`` holds."""
        rows = store.rows(STORED)
        stored = {row["id"]: row["mark"] for row in rows}
        times = Counter(row["id"] for row in rows)
        return cls(
            acked=len(marks),
            stored=len(stored),
            lost=tuple(sorted(one for one, mark in marks.items() if stored.get(one) != mark)),
            doubled=sum(number - 1 for number in times.values()),
            unacked=len(stored.keys() - marks.keys()),
        )
