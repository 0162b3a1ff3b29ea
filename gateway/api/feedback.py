"""``POST /v1/feedback``: a later fact about an answer; it goes through the spool as answers do."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, model_validator

from gateway.api.models import caller
from gateway.errors import InvalidRequest, RecordFailed, SpoolError
from gateway.keys import Key
from gateway.log.record import Feedback, new_id
from gateway.log.spool import SpoolWriter

router = APIRouter()

DEMONSTRATION = "demonstration"
COMMENT = "comment"


class FeedbackIn(BaseModel):
    """TensorZero's shape. ``inference_id`` is an answer's id (``chatcmpl-...``) or request id."""

    metric_name: str = Field(min_length=1, max_length=128)
    value: bool | float | str | dict[str, Any]
    inference_id: str | None = None
    episode_id: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    dryrun: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> "FeedbackIn":
        if (self.inference_id is None) == (self.episode_id is None):
            raise ValueError("give either inference_id or episode_id")
        return self


class FeedbackOut(BaseModel):
    """The id of the feedback taken."""

    feedback_id: UUID


@router.post("/v1/feedback")
async def give_feedback(
    body: FeedbackIn, request: Request, key: Annotated[Key, Depends(caller)]
) -> FeedbackOut:
    """Take one score, comment or demonstration.

    The invocation need not be in the log yet. Feedback on another tenant's is taken and never seen.
    """
    now: Callable[[], datetime] = request.app.state.now
    spool: SpoolWriter = request.app.state.spool
    record = _record(body, key, now())
    if not body.dryrun:
        try:
            spool.append(record)
        except SpoolError as error:
            raise RecordFailed(f"The feedback could not be logged: {error}") from error
    return FeedbackOut(feedback_id=record.id)


def _record(body: FeedbackIn, key: Key, at: datetime) -> Feedback:
    target = "invocation" if body.inference_id is not None else "episode"
    field = "inference_id" if body.inference_id is not None else "episode_id"
    score: float | None = None
    comment: str | None = None
    value: Any = None
    if body.metric_name == DEMONSTRATION:
        value = _demonstration(body.value)
    elif body.metric_name == COMMENT:
        if not isinstance(body.value, str):
            raise InvalidRequest("a comment's value must be a string", param="value")
        comment = body.value
    elif isinstance(body.value, bool | float):
        score = float(body.value)
    else:
        raise InvalidRequest(
            f"the value of metric `{body.metric_name}` must be a boolean or a number",
            param="value",
        )
    return Feedback(
        id=new_id(),
        ts=at,
        tenant=key.tenant,
        target=target,
        target_id=_uuid(body.inference_id or body.episode_id or "", field),
        name=body.metric_name,
        score_value=score,
        explanation=comment,
        value=value,
        tags=body.tags or None,
    )


def _demonstration(value: Any) -> dict[str, Any]:
    """The assistant message that should have been the answer."""
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    if not isinstance(value, dict):
        raise InvalidRequest(
            "a demonstration's value must be the right answer: a string or an assistant message",
            param="value",
        )
    if value.get("role", "assistant") != "assistant":
        raise InvalidRequest("a demonstration's role must be assistant", param="value.role")
    if not value.get("content") and not value.get("tool_calls"):
        raise InvalidRequest("a demonstration needs content or tool_calls", param="value")
    for index, call in enumerate(value.get("tool_calls") or ()):
        if not _is_call(call):
            raise InvalidRequest(
                "a tool call is {type: function, function: {name, arguments}}, its arguments "
                "the text of a JSON object",
                param=f"value.tool_calls.{index}",
            )
    return {"role": "assistant", **value}


def _is_call(call: Any) -> bool:
    """Whether graders and trainers will be able to read this call."""
    try:
        arguments = json.loads(call["function"]["arguments"])
        return isinstance(call["function"]["name"], str) and isinstance(arguments, dict)
    except (TypeError, KeyError, ValueError):
        return False


def _uuid(text: str, field: str) -> UUID:
    """Answers carry our invocation id behind vLLM's prefix, so no look-up is needed."""
    try:
        return UUID(text.removeprefix("chatcmpl-"))
    except ValueError as error:
        raise InvalidRequest(
            f"{field} must be an id that this gateway gave out (chatcmpl-... or its request id)",
            param=field,
        ) from error
