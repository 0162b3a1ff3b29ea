"""Where the workers of a machine show each other what they have counted.

They share a port, so a scrape reaches any of them. Each writes its counters to a file of its own
every second, and the one that is asked adds them all up. A worker that comes back goes on from
its file: what was once shown never goes down, not even after ``kill -9``. That takes what was
counted since the last second, which the log has all the same.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.telemetry.counters import DURATION, OVERHEAD, Counts

EVERY_S = 1.0
STALE_S = 10.0
"""A worker silent for as long is gone. Its counters still count, its vitals do not."""
LAYOUT = (len(DURATION), len(OVERHEAD))
"""Histograms add up only with those of the same boundaries."""

logger = logging.getLogger(__name__)


class Vitals(msgspec.Struct, frozen=True):
    """How one worker is right now."""

    in_flight: int
    capacity: int
    memory_bytes: int
    state_age_s: float
    """How long ago it has read the keys, aliases and engines."""
    records_dropped: int
    """Answers given without a record, of this life."""
    engines: dict[str, tuple[int, bool]]
    """By engine: the calls under way, and whether it is left alone for having failed."""
    limits_unchecked: int = 0
    """Requests let in because Redis did not answer, of this life."""


class Page(msgspec.Struct, frozen=True):
    """What one worker shows."""

    at: float
    counts: Counts
    vitals: Vitals
    layout: tuple[int, int] = LAYOUT

    @property
    def total(self) -> Counts:
        """The counts of all lives, those that this one's vitals tell among them."""
        before, now = self.counts, self.vitals
        return msgspec.structs.replace(
            before,
            records_dropped=before.records_dropped + now.records_dropped,
            limits_unchecked=before.limits_unchecked + now.limits_unchecked,
        )


_page = msgspec.msgpack.Decoder(Page)


class Board:
    """One worker's page, and the others'. Any thread may use it."""

    def __init__(
        self, run: Path, worker: str, *, vitals: Callable[[], Vitals], now: Callable[[], float]
    ) -> None:
        """``now`` is in seconds since 1970. Goes on from the page that is there."""
        run.mkdir(parents=True, exist_ok=True)
        self._run, self._path = run, run / f"metrics-{worker}.msgpack"
        self._vitals, self._now = vitals, now
        before = _read(self._path)
        self.counts = before.total if before else Counts(since=now())
        self.counts.starts += 1
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._publish_always, name="board", daemon=True)

    def open(self) -> None:
        """Publish from now on."""
        self._thread.start()

    def close(self) -> None:
        """Publish a last time."""
        self._closing.set()
        self._thread.join()
        self._publish()

    def pages(self) -> dict[str, Page]:
        """Every worker's page, by its name; this one's is of now."""
        try:
            self._publish()
        except OSError as error:
            logger.warning("this worker's counters cannot be written: %s", error)
        found = {path: _read(path) for path in sorted(self._run.glob("metrics-*.msgpack"))}
        return {path.stem.removeprefix("metrics-"): page for path, page in found.items() if page}

    def is_live(self, page: Page) -> bool:
        """Whether its worker has written it lately."""
        return self._now() - page.at < STALE_S

    def _publish_always(self) -> None:
        while not self._closing.wait(EVERY_S):
            try:
                self._publish()
            except OSError as error:
                logger.warning("this worker's counters cannot be written: %s", error)

    def _publish(self) -> None:
        # Encoding holds the interpreter's lock, so that no number changes meanwhile.
        page = msgspec.msgpack.encode(Page(self._now(), self.counts, self._vitals()))
        beside = self._path.with_suffix(".new")
        with self._lock:
            beside.write_bytes(page)
            os.replace(beside, self._path)  # noqa: PTH105


def _read(path: Path) -> Page | None:
    """None where there is none, or none that this version can read."""
    try:
        page = _page.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        logger.warning("the counts in %s are left out: %s", path, error)
        return None
    if page.layout != LAYOUT:
        logger.warning("the counts in %s are left out: they have other buckets", path)
        return None
    return page
