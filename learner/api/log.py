"""Reading the log: one SELECT, or a question with a name, as Arrow or as JSON."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from gateway.log.catalogue import QUERIES, query
from learner.api.arrow import ArrowResponse
from learner.api.client import ARROW
from learner.api.owner import Desk

router = APIRouter()


class SelectIn(BaseModel):
    """One SELECT over the log."""

    sql: str


@router.post("/log/select")
def select(body: SelectIn, desk: Desk) -> ArrowResponse:
    """The answer as an Arrow stream, in constant memory."""
    return ArrowResponse(desk.log.select_batches(body.sql))


@router.get("/log/queries")
def queries() -> list[dict[str, Any]]:
    """The questions that have names."""
    return [one.told() for one in QUERIES.values()]


@router.get("/log/queries/{name}")
def answer(name: str, request: Request, desk: Desk) -> Response:
    """The answer to one of them; its parameters are the URL's. Arrow where it is accepted."""
    asked = query(name).asked(request.query_params, desk.now())
    if ARROW in request.headers.get("accept", ""):
        return ArrowResponse(desk.log.batches(asked.text, asked.parameters))
    rows = desk.log.rows(asked.text, asked.parameters)
    text = json.dumps(rows, ensure_ascii=False, default=str)
    return Response(text, media_type="application/json")
