"""``ratchet log``: through the learner while it runs, from the file when it does not."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click
import pyarrow as pa

from gateway.errors import BadQuery
from gateway.log.catalogue import QUERIES, query
from gateway.log.query import MOST
from gateway.log.store import Store
from gateway.log.subject import invocation_of
from learner.api.client import LearnerClient, LearnerDown
from learner.cli.rows import as_json, destination, rows_of, write
from learner.log import open_log
from learner.settings import RatchetConfig

FOLLOW_S = 1.0
"""How often to look for new calls."""


class Reader(Protocol):
    """The log, whoever owns it. Both give at least one batch; both raise BadQuery, StoreError."""

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The answer to one SELECT."""
        ...

    def query(self, name: str, parameters: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """The answer to a named query."""
        ...


@dataclass(frozen=True, slots=True)
class _File:
    """The log without a learner."""

    store: Store
    now: Callable[[], datetime]

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        return self.store.select_batches(sql)

    def query(self, name: str, parameters: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        asked = query(name).asked(parameters, self.now())
        return self.store.batches(asked.text, asked.parameters)


@contextmanager
def reading(config: RatchetConfig) -> Iterator[Reader]:
    """The running learner, else the file. Raises StoreError."""
    client = LearnerClient(config.learner_socket)
    try:
        client.health()
    except LearnerDown:
        with open_log(config) as store:
            yield _File(store, lambda: datetime.now(UTC))
    else:
        yield client


def select(config: RatchetConfig, sql: str, style: str, out: Path | None) -> None:
    """Write the answer to one SELECT. Raises BadQuery, StoreError, ImportFailed."""
    with reading(config) as log, destination(out, style) as file:
        write(log.batches(sql), style, file)


def ask(
    config: RatchetConfig, name: str, parameters: Mapping[str, str], style: str, out: Path | None
) -> None:
    """Write the answer to a named query. Raises BadQuery, StoreError, ImportFailed."""
    with reading(config) as log, destination(out, style) as file:
        write(log.query(name, parameters), style, file)


def follow(config: RatchetConfig, parameters: Mapping[str, str]) -> None:
    """Print calls as they come into the log, a JSON object each, until Ctrl-C."""
    with reading(config) as log:
        for row in followed(log, parameters, lambda: time.sleep(FOLLOW_S)):
            click.echo(as_json(row))


def followed(
    log: Reader, parameters: Mapping[str, str], wait: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """The newest calls, then each as it comes into the log, which is when it has ended: a slow
    one comes after quick ones that began later. Endless; ``wait`` is called between two looks.
    """
    (newest,) = rows_of(log.batches("SELECT max(ingest_ts) AS ts FROM invocations"))
    upto = newest["ts"]
    shown = list(rows_of(log.query("tail", parameters)))
    yield from shown
    told = {row["id"] for row in shown}
    while True:
        wait()
        watermark = {} if upto is None else {"after": str(upto)}
        for row in rows_of(log.query("tail", {**parameters, **watermark, "limit": str(MOST)})):
            upto = row["ingest_ts"] if upto is None else max(upto, row["ingest_ts"])
            if row["id"] not in told:
                yield row


def print_queries() -> None:
    """The named queries and their parameters."""
    for one in QUERIES.values():
        click.echo(f"{one.name}: {one.about}")
        for parameter in one.parameters:
            default = "" if parameter.default is None else f" [{parameter.default}]"
            choices = f": {', '.join(parameter.choices)}" if parameter.choices else ""
            click.echo(f"    {parameter.name}{default}  {parameter.about}{choices}")


def invocation_with_feedback(config: RatchetConfig, name: str) -> dict[str, Any]:
    """One row of ``invocations``, bodies decoded, and what was said about it."""
    invocation = invocation_of(name)
    if invocation is None:
        raise BadQuery(f"{name} is no invocation id; `ratchet log tail` shows them")
    with reading(config) as log:
        found = list(
            rows_of(log.batches(f"SELECT * FROM invocations WHERE id = '{invocation}'"))  # noqa: S608 - a UUID
        )
        if not found:
            raise BadQuery(f"there is no invocation {invocation} (yet)")
        about = f"SELECT * FROM feedback WHERE target_id = '{invocation}' ORDER BY id"  # noqa: S608
        said = [_decoded(one, "value") for one in rows_of(log.batches(about))]
    return _decoded(found[0], "request", "response") | {"feedback": said}


def _decoded(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    return row | {name: json.loads(row[name]) for name in columns if row.get(name)}
