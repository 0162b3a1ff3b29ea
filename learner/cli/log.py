"""``ratchet log``: through the learner while it runs, from the file when it does not."""

import json
import sys
from typing import Any
from uuid import UUID

import click
import pyarrow as pa
from pyarrow import csv

from gateway.errors import BadQuery
from learner.api.client import LearnerClient, LearnerDown
from learner.log import open_log
from learner.settings import RatchetConfig

TAIL = """
SELECT strftime(ts, '%H:%M:%S') AS time, id, request_model AS model, adapter, status,
  input_tokens AS "in", output_tokens AS out, round(duration * 1000) AS ms, error_type AS error
FROM (SELECT * FROM invocations ORDER BY id DESC LIMIT {count}) ORDER BY id
"""

_CELL = 60


def select(config: RatchetConfig, sql: str) -> pa.Table:
    """The answer to one SELECT. Raises BadQuery, StoreError."""
    try:
        return LearnerClient(config.learner_socket).select(sql)
    except LearnerDown:
        with open_log(config) as store:
            return store.select(sql)


def invocation_with_feedback(config: RatchetConfig, name: str) -> dict[str, Any]:
    """One row of ``invocations``, bodies decoded, and what was said about it."""
    try:
        invocation = UUID(name.removeprefix("chatcmpl-"))
    except ValueError as error:
        raise BadQuery(f"{name} is no invocation id; `ratchet log tail` shows them") from error
    found = select(config, f"SELECT * FROM invocations WHERE id = '{invocation}'").to_pylist()  # noqa: S608 - a UUID
    if not found:
        raise BadQuery(f"there is no invocation {invocation} (yet)")
    about = select(
        config,
        f"SELECT * FROM feedback WHERE target_id = '{invocation}' ORDER BY id",  # noqa: S608
    ).to_pylist()
    row = _decoded(found[0], "request", "response")
    return row | {"feedback": [_decoded(one, "value") for one in about]}


def print_table(table: pa.Table, style: str) -> None:
    """``table`` on standard output: for people, as CSV or as a JSON array."""
    if style == "csv":
        csv.write_csv(table, sys.stdout.buffer)
    elif style == "json":
        click.echo(json.dumps(table.to_pylist(), ensure_ascii=False, default=str))
    else:
        _print_for_people(table)


def _print_for_people(table: pa.Table) -> None:
    rows = [[_cell(value) for value in row.values()] for row in table.to_pylist()]
    lines = [table.column_names, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.column_names))]
    for number, line in enumerate(lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
        if number == 0:
            click.echo("  ".join("-" * width for width in widths))


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _decoded(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    return row | {name: json.loads(row[name]) for name in columns if row.get(name)}
