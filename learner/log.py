"""The log, opened as ratchet.yaml and the environment say."""

import os
from collections.abc import Callable
from datetime import datetime

from gateway.log.cipher import Keyring
from gateway.log.ingest import Ingester
from gateway.log.store import Store
from learner.settings import RatchetConfig


def open_log(config: RatchetConfig) -> Store:
    """Own the log. Raises StoreLocked while another process does, KeyUnavailable, StoreError."""
    return Store(config.log_url, lake=config.lake, keys=Keyring.from_environment(os.environ))


def open_ingester(config: RatchetConfig, log: Store, now: Callable[[], datetime]) -> Ingester:
    """What moves the spool into ``log``. Raises KeyUnavailable, StoreError."""
    keys = Keyring.from_environment(os.environ)
    return Ingester(
        log,
        config.spool,
        now=now,
        prices={model.alias: model.price for model in config.models if model.price is not None},
        cipher=None if keys is None else keys.spool,
        # The gateway stops at the whole of it; what it wrote by then must still find its way
        # into the log, which takes less room there and frees the spool's.
        reserve=config.log.reserve // 2,
    )
