"""Drives an import: rows become records, records go to the spool, what is no row is set aside.

The spool is the log's one way in, so that erasure, encryption and exactly-once hold for imports,
too. Ids are made from the rows: whatever was imported before is left out by the ingester.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec

from gateway.errors import ImportFailed, SpoolError
from gateway.log.import_.intake import Intake
from gateway.log.import_.source import files, rows
from gateway.log.record import Record
from gateway.log.spool import SpoolWriter

WORKER: Final = "import"
"""First part of the names of the segments that imports write."""
_EVERY: Final = 2000
"""Records between two looks at whether the log keeps up, and rows between two reports."""

NOT_A_ROW: Final = (
    ValueError,  # BadRow and msgspec's errors among them
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What a conversion says of JSON that is not of its shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How files of one kind are read, and what their rows become."""

    records: Callable[[Any, Intake], Sequence[Record]]
    rows: Callable[[Path], Iterator[tuple[int, Any]]] = rows
    folders: bool = True
    """Whether a folder stands for the files in it; else it is a source of its own."""
    skip: frozenset[str] = frozenset()
    """Folders that hold other things."""


@dataclass(slots=True)
class Tally:
    """What an import has done so far."""

    files: int = 0
    rows: int = 0
    records: Counter[str] = field(default_factory=Counter)
    """By kind: invocation, feedback, edit."""
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def shape_of(name: str) -> Shape:
    """The shape called ``name``: bedrock, openai, nvidia, litellm or parquet."""
    from gateway.log.import_ import bedrock, litellm, nvidia, openai

    if name == "parquet":
        from gateway.log.import_ import parquet

        return Shape(parquet.records, parquet.rows, folders=False)
    return {
        # Beside its logs Bedrock puts the bodies that were too large for them.
        "bedrock": Shape(bedrock.records, skip=frozenset({"data"})),
        "openai": Shape(openai.records),
        "nvidia": Shape(nvidia.records),
        "litellm": Shape(litellm.records),
    }[name]


@dataclass(frozen=True, slots=True)
class Spooled:
    """Where records go. When the spool has no room, ``relieve`` makes some, or waits for it.

    It is told how often it was asked in vain, and raises the SpoolError it is given to give up.
    """

    spool: SpoolWriter
    relieve: Callable[[int, SpoolError | None], None]

    def put(self, record: Record) -> None:
        """Append the record. Raises SpoolError once ``relieve`` has given up."""
        for asked in itertools.count():
            try:
                self.spool.append(record)
            except SpoolError as error:
                self.relieve(asked, error)
            else:
                return


class Rejects:
    """The file of the rows that could not be imported; there is none until there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, source: Path, line: int, reason: str, row: Any) -> None:
        """Write one down. Raises ImportFailed when it cannot be."""
        told = {"source": str(source), "line": line, "reason": reason, "row": _readable(row)}
        try:
            if self._file is None:
                flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
                self._file = os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="utf-8")
            self._file.write(json.dumps(told, default=str) + "\n")
        except OSError as error:
            raise ImportFailed(f"cannot write to {self.path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Import:
    """One run over some files."""

    shape: Shape
    into: Intake
    spooled: Spooled
    rejects: Rejects
    report: Callable[[Tally], None]
    tally: Tally = field(default_factory=Tally)

    def take(self, path: Path) -> None:
        """Import every row of a file, or of the files in a folder.

        Raises ImportFailed when a file is broken, SpoolError when the spool stays full: what
        came before is in the spool, and importing again doubles nothing.
        """
        for file in files(path, self.shape.skip) if self.shape.folders else (path,):
            self.tally.files += 1
            for number, row in self.shape.rows(file):
                self._take(file, number, row)
                if not self.tally.rows % _EVERY:
                    self.spooled.relieve(0, None)
                    self.report(self.tally)

    def _take(self, file: Path, number: int, row: Any) -> None:
        self.tally.rows += 1
        try:
            records = self.shape.records(row, self.into)
        except NOT_A_ROW as error:
            reason = _reason(error)
            self.tally.rejected += 1
            self.tally.reasons[reason] += 1
            self.rejects.add(file, number, reason, row)
            return
        for record in records:
            self.spooled.put(record)
            self.tally.records[str(record.__struct_config__.tag)] += 1


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"it is not of this shape: {type(error).__name__}: {error}"


def _readable(row: Any) -> Any:
    """The row as JSON where it is, else as text."""
    if not isinstance(row, bytes):
        return row
    try:
        return msgspec.json.decode(row)
    except (msgspec.DecodeError, RecursionError):
        return row.decode("utf-8", "replace")
