"""What every kind of guard can do."""

from typing import Protocol


class GuardFailed(Exception):
    """The guard gave no answer. The message says why, and quotes nothing of the call."""


class Asked(Protocol):
    """A guard that can be asked."""

    async def ask(self, question: bytes) -> bytes:
        """Its verdict on the question, both JSON. Raises GuardFailed."""
