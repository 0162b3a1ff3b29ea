"""A process that owns the log and ingests, until SIGTERM or worse.

    python -m tests.chaos.owner --log FILE --spool DIR

What the learner does with the log, without the rest of the learner.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gateway.errors import StoreError
from gateway.log.cipher import Keyring
from gateway.log.ingest import Ingester
from gateway.log.store import Store

CHECKPOINT_EVERY_S = 3.0


def own(log: Path, spool: Path, stop: threading.Event) -> None:
    """Ingest until ``stop``."""
    keys = Keyring.from_environment(os.environ)
    with Store(log, keys=keys) as store:
        ingester = Ingester(
            store, spool, now=partial(datetime.now, UTC), cipher=keys.spool if keys else None
        )
        threading.Thread(target=checkpoint, args=(store, stop), daemon=True).start()
        ingester.run(stop, every_s=0.05)


def checkpoint(store: Store, stop: threading.Event) -> None:
    """Do often what the log does when its write-ahead file is large: kills shall hit it, too."""
    while not stop.wait(CHECKPOINT_EVERY_S):
        with suppress(StoreError):  # a full disk, which the ingester will tell of
            store.checkpoint()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    told = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        own(told.log, told.spool, stop)
    except StoreError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
