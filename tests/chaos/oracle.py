"""How the log compares with what was acknowledged."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gateway.log.store import Store

STORED = """
SELECT id::VARCHAR AS id, split_part(request->>'$.messages[0].content', ' ', 1) AS mark
  FROM invocations
UNION ALL SELECT id::VARCHAR, explanation FROM feedback
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is missing, and what there is too much of."""

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
