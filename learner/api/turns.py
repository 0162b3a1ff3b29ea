"""What was learnt, turn by turn."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from gateway.errors import NotFound
from learner.jobs import Turn, TurnStore

router = APIRouter()


def _turns(request: Request) -> TurnStore:
    turns: TurnStore = request.app.state.turns
    return turns


Turns = Annotated[TurnStore, Depends(_turns)]


@router.get("/turns")
def recent(turns: Turns, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[Turn]:
    """The newest turns, newest first."""
    return list(turns.recent(limit))


@router.get("/turns/{turn_id}")
def get(turns: Turns, turn_id: str) -> Turn:
    """One turn."""
    turn = turns.get(turn_id)
    if turn is None:
        raise NotFound(f"There is no turn {turn_id}.")
    return turn


@router.get("/turns/{turn_id}/events")
def history(turns: Turns, turn_id: str, after: int = 0) -> list[dict[str, Any]]:
    """The turn's events after sequence number ``after``, oldest first."""
    return turns.history(turn_id, after=after)
