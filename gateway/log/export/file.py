"""One file, whole or not there."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from uuid import uuid4

from gateway.errors import ImportFailed


def write_lines(lines: Iterable[bytes], path: Path | None) -> int:
    """Write them to ``path``, or to standard output; how many there were.

    Whatever goes wrong, what was at ``path`` stays. Raises ImportFailed when it cannot be written.
    """
    if path is None:
        return _written(lines, sys.stdout.buffer)
    partial = path.parent / f".{path.name}.{uuid4().hex}.partial"
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as out:  # a pipe or a device; never replaced
                return _written(lines, out)
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            n = _written(lines, out)
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        raise ImportFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return n


def _written(lines: Iterable[bytes], out: IO[bytes]) -> int:
    n = 0
    for line in lines:
        out.write(line)
        n += 1
    out.flush()
    return n
