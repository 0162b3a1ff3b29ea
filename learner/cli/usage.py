"""``ratchet usage``: who used how much, as a table for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.log.query import MOST
from gateway.log.record import GATEWAY
from learner.cli.log import reading
from learner.cli.rows import as_json, rows_of
from learner.settings import load

_COUNTS = {
    "calls": "calls",
    "errors": "errors",
    "input_tokens": "prompt",
    "cache_read_input_tokens": "cached",
    "output_tokens": "completion",
    "reasoning_output_tokens": "reasoning",
}
"""Columns of the log's query, and what a person calls them."""


def show(
    config_path: Path, by: Sequence[str], since: str, tenant: str | None, *, as_objects: bool
) -> None:
    """Print what calls took, counted by ``by``. Raises BadQuery, StoreError."""
    parameters = {
        "by": ",".join(by),
        "since": since,
        "where": as_json({"origin": GATEWAY}),
        "limit": str(MOST),
    }
    if tenant is not None:
        parameters["tenant"] = tenant
    with reading(load(config_path)) as log:
        rows = list(rows_of(log.query("usage", parameters)))
    for row in rows:
        row.update({name: row[name] or 0 for name in _COUNTS})
    if as_objects:
        keys = (*by, *_COUNTS, "cost")
        click.echo(as_json([{key: row[key] for key in keys} for row in rows]))
        return
    for line in table(by, rows):
        click.echo(line)


def table(by: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line each, and one with the totals; numbers end below each other."""
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in _COUNTS}
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    total["cost"] = sum(costs) if costs else None
    header = [*by, *_COUNTS.values(), "cost"]
    lines = [[*(_name(row[one]) for one in by), *_numbers(row)] for row in rows]
    last = ["total", *[""] * (len(by) - 1), *_numbers(total)]
    widths = [max(map(len, column)) for column in zip(header, *lines, last, strict=True)]
    ruler = ["-" * width for width in widths]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if place < len(by) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [line(cells) for cells in (header, ruler, *lines, ruler, last)]


def _name(value: Any) -> str:
    return "-" if value is None else str(value)


def _numbers(row: Mapping[str, Any]) -> list[str]:
    cost = row["cost"]
    return [*(f"{row[name]:,}" for name in _COUNTS), "-" if cost is None else f"{cost:,.6f}"]
