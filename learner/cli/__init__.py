"""The command line: ``ratchet``. Each command imports what it needs when it runs."""

from learner.cli.main import main

__all__ = ["main"]
