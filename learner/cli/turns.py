"""``ratchet turns``: read from the state, so that it works without a learner."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from learner.errors import LearnerError
from learner.jobs import Turn, TurnStore
from learner.settings import load
from serving.database import open_database


def show_turns(config_path: Path, turn_id: str | None, *, as_json: bool) -> None:
    """Print the newest turns, or one turn's history. Raises LearnerError for an unknown one."""
    store = TurnStore(open_database(load(config_path).database))
    if turn_id is None:
        turns = store.recent(20)
        if as_json:
            click.echo(json.dumps([asdict(turn) for turn in turns], default=str))
        for turn in () if as_json else turns:
            click.echo(_line(turn))
        return
    found = store.get(turn_id)
    if found is None:
        raise LearnerError(f"there is no turn {turn_id}; `ratchet turns` lists them")
    history = store.history(turn_id)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"events": history}, default=str))
        return
    click.echo(_line(found))
    for event in history:
        click.echo(event_line(event))


def event_line(event: dict[str, Any]) -> str:
    """One event of a turn's history."""
    at = event["at"]
    clock = at if isinstance(at, str) else at.strftime("%H:%M:%S")
    return f"{clock}  {event['phase']:8}  {event['message']}"


def _line(turn: Turn) -> str:
    why = turn.error or (turn.verdict or {}).get("reason", "")
    started = turn.started_at.strftime("%Y-%m-%d %H:%M:%S")
    state = f"{turn.state} ({turn.phase})" if turn.state == "running" else str(turn.state)
    return f"{turn.id}  {started}  {turn.alias}  {state}  {why}".rstrip()
