"""The log, opened as ratchet.yaml and the environment say."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from gateway.errors import StoreError, StoreLocked
from gateway.log.cipher import Keyring
from gateway.log.ingest import Ingester
from gateway.log.spool import Durability, SpoolWriter
from gateway.log.store import Store
from gateway.log.subject import SubjectKey
from learner.api.owner import Owner
from learner.erasure import Erasures
from learner.jobs import TurnStore
from learner.settings import RatchetConfig
from learner.upkeep import Upkeep
from serving.registry import Registry


def open_log(config: RatchetConfig) -> Store:
    """Own the log. Raises StoreLocked while another process does, KeyUnavailable, StoreError."""
    keys = Keyring.from_environment(os.environ)
    try:
        return Store(config.log_url, lake=config.lake, keys=keys)
    except OSError as error:
        raise StoreError(f"the log cannot be opened: {error}") from error


@contextmanager
def sole_owner(spool: Path) -> Iterator[None]:
    """Nobody else takes the spool in meanwhile: into a lake two learners would do so twice.

    Raises StoreLocked when another process does.
    """
    spool.mkdir(parents=True, exist_ok=True)
    folder = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreLocked(
                f"the spool {spool} belongs to another process (is `ratchet up` running?); "
                "stop that"
            ) from error
        yield
    finally:
        os.close(folder)


def open_ingester(config: RatchetConfig, log: Store, now: Callable[[], datetime]) -> Ingester:
    """What moves the spool into ``log``. Raises KeyUnavailable, StoreError."""
    keys = Keyring.from_environment(os.environ)
    return Ingester(
        log,
        config.spool,
        now=now,
        prices={model.alias: model.price for model in config.models if model.price is not None},
        cipher=None if keys is None else keys.spool,
        reserve=config.log.reserve,
    )


def open_writer(config: RatchetConfig, name: str) -> SpoolWriter:
    """The way into the log for what we have to say ourselves. Raises KeyUnavailable, SpoolError."""
    keys = Keyring.from_environment(os.environ)
    return SpoolWriter(
        config.spool,
        name,
        durability=Durability(config.log.durability),
        quota=config.log.spool_quota,
        # What is erased makes room: it must be possible to say so on a disk that is nearly full.
        reserve=0,
        cipher=None if keys is None else keys.spool,
    )


def open_upkeep(config: RatchetConfig, owner: Owner, turns: TurnStore) -> Upkeep:
    """The log's housekeeping. Raises KeyUnavailable."""
    keys = Keyring.from_environment(os.environ)
    return Upkeep(
        owner.log,
        owner.ingester,
        turns,
        spool=config.spool,
        datasets=config.data / "datasets",
        retention=config.log.retention,
        cipher=None if keys is None else keys.spool,
        now=owner.now,
    )


def open_erasures(
    config: RatchetConfig, owner: Owner, upkeep: Upkeep, registry: Registry
) -> Erasures:
    """The right to be forgotten. Raises KeyUnavailable."""
    return Erasures(
        owner.log,
        owner.write,
        upkeep,
        registry,
        SubjectKey.open(config.subject_key),
        datasets=config.data / "datasets",
        now=owner.now,
    )
