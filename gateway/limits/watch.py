"""Looks after workers that died: what they had under way is given back."""

import logging
import threading
from pathlib import Path

from gateway.limits.table import Life, Table

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often to look."""


class Watch:
    """A thread with an opening of the table of its own."""

    def __init__(self, directory: Path, me: int) -> None:
        self._directory = directory
        self._me = me
        self._table = Table(directory)
        self._stopped = threading.Event()
        self.look()
        self._thread = threading.Thread(target=self._run, name="limits", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._table.close()

    def look(self) -> None:
        """Heal the table of every worker whose life is to be had though it did not say goodbye."""
        for worker in self._table.enlisted():
            if worker == self._me or not (life := Life.take(self._directory, worker)):
                continue
            try:
                calls = self._table.heal(worker)
            finally:
                life.end()
            logger.warning("worker %d is dead; %d calls of it are given back", worker, calls)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            try:
                self.look()
            except OSError as error:
                logger.error("cannot look after dead workers' calls: %s", error)  # noqa: TRY400
