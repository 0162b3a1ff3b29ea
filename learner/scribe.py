"""What the learner itself has to say goes the way of every record, and is read right after."""

import threading

from gateway.log.ingest import Ingester
from gateway.log.record import Record
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store


class Scribe:
    """Writes records into the spool and, from there, into the log. From any thread."""

    def __init__(self, store: Store, writer: SpoolWriter, ingester: Ingester) -> None:
        self._store = store
        self._writer = writer
        self._ingester = ingester
        self._lock = threading.Lock()

    def write(self, record: Record) -> None:
        """On return whoever asks the log sees it.

        Raises SpoolError when nothing was written; StoreError or OSError when it was, and will
        be in the log as soon as that takes it.
        """
        with self._lock:
            self._writer.append(record)
            segment = self._writer.segment
        if segment is None:
            return
        try:
            upto = segment.stat().st_size
        except FileNotFoundError:  # ingested and retired already
            return
        while self._store.offsets().get(segment.name, 0) < upto and self._ingester.run_once():
            pass
