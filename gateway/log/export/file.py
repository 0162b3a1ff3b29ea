"""One file, whole or not there."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from gateway.errors import ImportFailed


def write_lines(lines: Iterable[bytes], path: Path | None) -> int:
    """Write them to ``path``, or to standard output; how many there were.

    Whatever goes wrong, what was at ``path`` stays. Raises ImportFailed when it cannot be written.
    """
    n = 0
    if path is None:
        for line in lines:
            sys.stdout.buffer.write(line)
            n += 1
        sys.stdout.buffer.flush()
        return n
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            for line in lines:
                out.write(line)
                n += 1
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        raise ImportFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return n
