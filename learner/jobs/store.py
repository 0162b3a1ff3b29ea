"""Turns, their events and verdicts, in the state database."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from learner.errors import IllegalMove
from learner.jobs.turn import Phase, Turn, TurnState
from serving.database import UtcDateTime, create_tables, read, write

metadata = sa.MetaData()

turns = sa.Table(
    "turns",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("alias", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("phase", sa.String, nullable=False),
    sa.Column("trigger", sa.String, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("changed_at", UtcDateTime, nullable=False),
    sa.Column("watermark", UtcDateTime, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("dataset", sa.String),
    sa.Column("version", sa.Integer),
    sa.Column("verdict", sa.JSON),
    sa.Column("error", sa.String),
    # Two turns of one alias at once would race for its next version.
    sa.Index(
        "one_running_turn",
        "alias",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

events = sa.Table(
    "turn_events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("turn_id", sa.String, sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("phase", sa.String, nullable=False),
    sa.Column("level", sa.String, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sa.Column("data", sa.JSON),
)


class TurnStore:
    """The turns' tables. Each write names the state it expects; a lost race is IllegalMove."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create_tables(engine, metadata)

    def add(self, turn: Turn) -> None:
        """A new turn. Raises IllegalMove when its alias has one running."""
        try:
            with write(self._engine) as connection:
                connection.execute(sa.insert(turns).values(**asdict(turn)))
        except sa.exc.IntegrityError as error:
            raise IllegalMove(f"{turn.alias} has a running turn already") from error

    def save(self, turn: Turn, *, expected: Turn) -> None:
        """Replace ``expected`` by ``turn``, unless another learner has taken it over."""
        with write(self._engine) as connection:
            done = connection.execute(
                sa.update(turns)
                .where(
                    turns.c.id == turn.id,
                    turns.c.state == expected.state,
                    turns.c.attempt == expected.attempt,
                )
                .values(**asdict(turn))
            )
        if not done.rowcount:
            raise IllegalMove(f"turn {turn.id} was taken over by another learner")

    def get(self, turn_id: str) -> Turn | None:
        found = self._select(turns.c.id == turn_id)
        return found[0] if found else None

    def running(self) -> tuple[Turn, ...]:
        return self._select(turns.c.state == TurnState.RUNNING)

    def last(self, alias: str) -> Turn | None:
        """The newest turn of ``alias``, running or ended."""
        found = self.recent(1, alias=alias)
        return found[0] if found else None

    def learnt(self, alias: str) -> Turn | None:
        """The newest turn of ``alias`` that came to a verdict: older samples are not new."""
        judged = (TurnState.PROMOTED, TurnState.REJECTED, TurnState.INCONCLUSIVE)
        found = self._select(sa.and_(turns.c.alias == alias, turns.c.state.in_(judged)), limit=1)
        return found[0] if found else None

    def recent(self, limit: int, *, alias: str | None = None) -> tuple[Turn, ...]:
        """The newest turns, newest first."""
        where = sa.true() if alias is None else turns.c.alias == alias
        return self._select(where, limit=limit)

    def log(
        self,
        turn: Turn,
        message: str,
        *,
        at: datetime,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one event to a turn's history."""
        with write(self._engine) as connection:
            connection.execute(
                sa.insert(events).values(
                    turn_id=turn.id,
                    at=at,
                    phase=turn.phase,
                    level=level,
                    message=message,
                    data=None if data is None else dict(data),
                )
            )

    def history(self, turn_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """The turn's events after sequence number ``after``, oldest first."""
        query = (
            sa.select(events)
            .where(events.c.turn_id == turn_id, events.c.seq > after)
            .order_by(events.c.seq)
        )
        with read(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _select(self, where: sa.ColumnElement[bool], limit: int | None = None) -> tuple[Turn, ...]:
        query = sa.select(turns).where(where).order_by(turns.c.started_at.desc()).limit(limit)
        with read(self._engine) as connection:
            return tuple(_turn(row) for row in connection.execute(query).mappings())


def _turn(row: Mapping[Any, Any]) -> Turn:
    fields = dict(row)
    fields["state"], fields["phase"] = TurnState(row["state"]), Phase(row["phase"])
    return Turn(**fields)
