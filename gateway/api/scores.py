"""``POST /api/public/scores``: feedback in Langfuse's shape, from its clients as they are."""

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from gateway.api.body import as_object, checked
from gateway.api.caller import state_of
from gateway.api.feedback import Name, named, take
from gateway.api.opinion import Opinion
from gateway.errors import InvalidRequest
from gateway.keys import Key, Scope
from gateway.state import State

router = APIRouter()

SCORE_ID = "score_id"
"""The tag that keeps a client's own id of a score."""


class ScoreIn(BaseModel):
    """Langfuse's shape, in its spelling."""

    id: Name | None = None
    traceId: Name | None = None  # noqa: N815
    observationId: Name | None = None  # noqa: N815
    sessionId: Name | None = None  # noqa: N815
    name: Annotated[str, Field(min_length=1, max_length=128)]
    value: Any
    dataType: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL"] | None = None  # noqa: N815
    comment: str | None = None
    metadata: dict[str, Any] | None = None


def scorer(
    request: Request,
    state: Annotated[State, Depends(state_of)],
) -> Key:
    """The key of the request: as a Bearer, or as Langfuse's secret key, the Basic password."""
    headers = dict(request.scope["headers"])
    scheme, _, encoded = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic":
        try:
            pair = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            pair = b""
        headers[b"authorization"] = b"Bearer " + pair.partition(b":")[2]
    key = state.key(headers)
    key.require(Scope.INFERENCE)
    return key


@router.post("/api/public/scores")
async def give_score(request: Request, key: Annotated[Key, Depends(scorer)]) -> dict[str, str]:
    """Take one score.

    Langfuse overwrites a score given again under the same id. Here each is kept, and the newest
    of a name counts, so giving it again comes to the same.
    """
    given = checked(await as_object(request), ScoreIn)
    taken = await take(_opinion(given, key), request, key)
    return {"id": given.id or str(taken)}


def _opinion(given: ScoreIn, key: Key) -> Opinion:
    names = [given.observationId, given.traceId, given.sessionId]
    targets = [named(name, key) for name in names if name]
    # An observation that is none of ours is a step inside its trace, which says more here.
    if given.observationId and targets[0]["target"] == "episode":
        targets = targets[1:]
    if not targets:
        raise InvalidRequest("give traceId, or the observationId of an answer", param="traceId")
    tags = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (given.metadata or {}).items()
    }
    if given.id:
        tags[SCORE_ID] = given.id
    return Opinion(
        name=given.name,
        value=_value(given),
        is_category=given.dataType in {None, "CATEGORICAL"},
        comment=given.comment,
        tags=tags,
        **targets[0],
    )


def _value(given: ScoreIn) -> Any:
    """The value as its type has it: a boolean comes as 0 or 1."""
    value = given.value
    if given.dataType == "BOOLEAN":
        if value not in (0, 1):
            raise InvalidRequest("the value of a BOOLEAN is 0 or 1", param="value")
        return bool(value)
    is_text = isinstance(value, str)
    if given.dataType and is_text != (given.dataType == "CATEGORICAL"):
        wanted = "a string" if given.dataType == "CATEGORICAL" else "a number"
        raise InvalidRequest(f"the value of a {given.dataType} is {wanted}", param="value")
    return value
