"""Whether it is the rows that the log refuses, or something else that is wrong."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from gateway.errors import StoreError
from gateway.log.lines import READ_BYTES, Line

_CONTENT = (
    duckdb.DataError,
    duckdb.IntegrityError,
    duckdb.InvalidInputException,
    duckdb.OutOfMemoryException,
    pa.ArrowException,
    OverflowError,
)
"""What is said when the rows are to blame, not the disk."""


def is_refusal(error: Exception, lines: Sequence[Line]) -> bool:
    """Whether the log refuses what ``lines`` say, and would take other lines."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if len(lines) == 1:
        if lines[0].record is None:
            return False  # what is left of it is an incident
        if isinstance(cause, duckdb.OutOfMemoryException) and len(lines[0].raw) < READ_BYTES:
            return False  # it is somebody else who takes the memory
    return isinstance(cause, _CONTENT)


def reason(error: Exception) -> str:
    """Without the words of DuckDB: it cites what it refuses, and that may have to be erased."""
    cause = error.__cause__
    return str(error) if cause is None else type(cause).__name__
