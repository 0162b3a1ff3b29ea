"""``ratchet log forget`` and ``ratchet log compact``: through the learner while it runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import click

from learner.api.client import LearnerClient, LearnerDown
from learner.api.erasures import ErasureIn
from learner.api.owner import Owner
from learner.erasure import Erasures
from learner.jobs import TurnStore
from learner.log import open_erasures, open_ingester, open_log, open_upkeep, open_writer
from learner.settings import RatchetConfig
from serving.database import open_database
from serving.registry import Registry

T = TypeVar("T")

PATIENCE_S = 3600.0
"""How long a large log may take to be written anew."""


def forget(config: RatchetConfig, order: ErasureIn, *, tenant: str) -> dict[str, Any]:
    """Erase; the receipt. Raises InvalidRequest, SpoolError, StoreError, KeyUnavailable."""
    whom = order.whom  # before anything is opened: a name that is none is said at once
    body = order.model_dump(exclude_none=True)
    return _either(
        config,
        lambda client: client.erase(body, tenant=tenant),
        lambda erasures: erasures.ask(
            whom, tenant=tenant, reason=order.reason, remove_now=order.remove_now
        ),
    )


def compact(config: RatchetConfig) -> int:
    """Remove what was erased from every file; how many erasures wait. Raises StoreError."""
    return _either(config, LearnerClient.compact, Erasures.remove)


def print_receipt(receipt: dict[str, Any]) -> None:
    """For people."""
    is_removed = receipt["status"] == "removed"
    click.echo(
        f"erasure {receipt['id']}: {receipt['invocations']} invocations and "
        f"{receipt['feedback']} pieces of feedback of tenant {receipt['tenant']} are deleted"
        + (", and removed from every file" if is_removed else "")
    )
    if not is_removed:
        click.echo("they leave the files within a day; `ratchet log compact` does that at once")
    for dataset in receipt["datasets"]:
        click.echo(f"dataset {dataset['sha256'][:12]} {_became(dataset)}")
    for adapter in receipt["adapters"]:
        click.echo(
            f"adapter {adapter['alias']} v{adapter['version']} ({adapter['stage']}) has learnt "
            "from them; its weights stay as they are"
        )


def _became(dataset: dict[str, Any]) -> str:
    if not dataset["removed"]:
        return "held some of them and is to be rebuilt"
    if dataset["rebuilt_as"] is None:
        return "held nothing else and is gone"
    return f"was rebuilt without them as {dataset['rebuilt_as'][:12]}"


def _either(
    config: RatchetConfig,
    by_learner: Callable[[LearnerClient], T],
    by_us: Callable[[Erasures], T],
) -> T:
    try:
        return by_learner(LearnerClient(config.learner_socket, timeout_s=PATIENCE_S))
    except LearnerDown:
        with _ourselves(config) as erasures:
            return by_us(erasures)


@contextmanager
def _ourselves(config: RatchetConfig) -> Iterator[Erasures]:
    """This process as the log's owner. Raises StoreLocked when another one is."""
    now = partial(datetime.now, UTC)
    with ExitStack() as stack:
        log = stack.enter_context(open_log(config))
        database = open_database(config.database)
        stack.callback(database.dispose)
        registry = Registry.open(config.database)
        stack.callback(registry.close)
        owner = Owner(log, open_ingester(config, log, now), open_writer(config, "cli"), now)
        stack.callback(owner.spool.close)
        upkeep = open_upkeep(config, owner, TurnStore(database))
        erasures = open_erasures(config, owner, upkeep, registry)
        stack.callback(erasures.close)
        yield erasures
