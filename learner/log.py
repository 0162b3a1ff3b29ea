"""The log, opened as ratchet.yaml and the environment say."""

import os

from gateway.log.cipher import Keyring
from gateway.log.store import Store
from learner.settings import RatchetConfig


def open_log(config: RatchetConfig) -> Store:
    """Own the log. Raises StoreLocked while another process does, KeyUnavailable, StoreError."""
    return Store(config.log_url, lake=config.lake, keys=Keyring.from_environment(os.environ))
