"""What an engine truly sent: a line for each answer that told of tokens."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct


class Tokens(Struct, frozen=True):
    """Of one answer, or of many."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def plus(self, other: "Tokens") -> "Tokens":
        """Both together."""
        return Tokens(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
        )

    @property
    def nanos(self) -> int:
        """Their cost in billionths, by the prices of ``world.PRICE``."""
        return 1000 * (self.prompt - self.cached) + 100 * self.cached + 2000 * self.completion


class Sent(Struct, frozen=True):
    """One answer, as far as the kernel had taken it from the engine."""

    id: str
    """The ``x-request-id`` that the gateway sent."""
    engine: str
    key: str
    """Whose request it was and which name it asked for, as the prompt itself says."""
    name: str
    model: str
    """The name the engine was asked for."""
    operation: str
    tokens: Tokens
    whole: bool


class Ledger:
    """Appends to a file. What was appended outlives the process, though not the machine."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, sent: Sent) -> None:
        os.write(self._fd, msgspec.json.encode(sent) + b"\n")


def read(paths: list[Path]) -> Iterator[Sent]:
    """The lines of several ledgers."""
    decoder = msgspec.json.Decoder(Sent)
    for path in paths:
        with path.open("rb") as lines:
            yield from map(decoder.decode, lines)
