"""What could not be taken into the log is kept, byte for byte, and named."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from gateway.log.lines import Line
from gateway.log.record import Incident

FOLDER = "quarantine"


@dataclass(frozen=True, slots=True)
class Damage:
    """Neighbouring lines of a segment that cannot be taken."""

    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """``<segment>@<byte>``: also the name of the file in the quarantine."""
        return f"{self.lines[0].segment}@{self.lines[0].at}"

    def incident(self, ts: datetime) -> Incident:
        """As the log names it. Its id is that of the place: replayed, it is the same one."""
        first = self.lines[0]
        return Incident(
            id=uuid5(NAMESPACE_URL, self.name),
            ts=ts,
            kind="quarantined",
            n=len(self.lines),
            segment=first.segment,
            at_byte=first.at,
            detail=first.why,
        )

    def keep(self, folder: Path) -> None:
        """Write it down. Repeated, it writes the same. Raises OSError."""
        if not any(line.raw for line in self.lines):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(folder / self.name, flags, 0o600), "wb") as file:  # noqa: PTH123
            file.writelines(line.raw + b"\n" for line in self.lines)
            file.flush()
            os.fsync(file.fileno())


def damages(lines: Iterable[Line]) -> Iterator[Damage]:
    """The damaged among ``lines``, neighbours together."""
    run: list[Line] = []
    for line in lines:
        if line.why is None:
            continue
        if run and (run[-1].segment, run[-1].end) != (line.segment, line.at):
            yield Damage(tuple(run))
            run = []
        run.append(line)
    if run:
        yield Damage(tuple(run))
