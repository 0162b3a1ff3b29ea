"""The learner's own address: a Unix socket that the command line and the demo talk to."""

import io
from typing import Annotated, Any

import pyarrow as pa
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gateway.errors import BadQuery, StoreError
from gateway.log.store import Store
from learner.jobs import Turn, TurnStore

ARROW = "application/vnd.apache.arrow.stream"


class SelectIn(BaseModel):
    """One SELECT over the log."""

    sql: str


def create_app(log: Store, turns: TurnStore) -> FastAPI:
    """The ASGI application over an open log and the turns' tables."""
    app = FastAPI(title="Ratchet learner")

    @app.exception_handler(StoreError)
    async def _store_error(_: Request, error: StoreError) -> JSONResponse:
        status = 400 if isinstance(error, BadQuery) else 503
        return JSONResponse({"error": {"message": str(error)}}, status)

    @app.post("/log/select")
    def select(body: SelectIn) -> Response:
        """The answer as an Arrow stream."""
        return Response(as_arrow(log.select(body.sql)), media_type=ARROW)

    @app.get("/turns")
    def list_turns(limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[Turn]:
        """The newest turns, newest first."""
        return list(turns.recent(limit))

    @app.get("/turns/{turn_id}")
    def get_turn(turn_id: str) -> Turn:
        """One turn."""
        turn = turns.get(turn_id)
        if turn is None:
            raise HTTPException(404, f"there is no turn {turn_id}")
        return turn

    @app.get("/turns/{turn_id}/events")
    def history(turn_id: str, after: int = 0) -> list[dict[str, Any]]:
        """The turn's events after sequence number ``after``, oldest first."""
        return turns.history(turn_id, after=after)

    @app.get("/health")
    def health() -> dict[str, int]:
        """A real query: a log that cannot answer is not healthy."""
        return {"invocations": log.rows("SELECT count(*) AS n FROM invocations")[0]["n"]}

    return app


def as_arrow(table: pa.Table) -> bytes:
    """``table`` in Arrow's stream format."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
