"""What sandboxed code may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one sandbox. A worker is one process with one thread, and has nowhere to write."""

    wall_s: float = 2.0
    """Seconds one call may run, and may wait to be run."""
    memory: int = 512 << 20
    """Bytes of address space of one worker."""
    cpu_s: int = 600
    """Seconds of computing of one worker's life; it is replaced long before, between calls."""
    files: int = 32
    """Open files of one worker."""
    output: int = 32 << 20
    """Bytes of one answer."""
    workers: int = 2
    """Calls at once; others wait their turn."""
