"""``POST /v1/feedback``: a later fact about an answer; it goes through the spool as answers do.

The path takes two shapes: TensorZero's, which is ours, and Portkey's, told by its ``trace_id``.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.body import as_object, checked
from gateway.api.caller import Caller
from gateway.api.idempotency import id_of
from gateway.api.opinion import Opinion, answer_named, feedback
from gateway.errors import InvalidRequest
from gateway.keys import Key
from gateway.log.record import new_id
from gateway.log.subject import episode_of, invocation_of
from gateway.recorder import Recorder

router = APIRouter()

PORTKEY_METRIC = "feedback"
"""What Portkey's feedback is called here: in its own shape it has no name."""

Name = Annotated[str, Field(min_length=1, max_length=512)]


class FeedbackIn(BaseModel):
    """TensorZero's shape. ``inference_id`` is an answer's id (``chatcmpl-...``) or request id."""

    # A misspelt `dryrun` would be recorded.
    model_config = ConfigDict(extra="forbid")

    metric_name: Annotated[str, Field(min_length=1, max_length=128)]
    value: Any
    inference_id: Name | None = None
    episode_id: Name | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    dryrun: bool = False


class PortkeyFeedbackIn(BaseModel):
    """Portkey's shape. ``weight`` and ``metadata`` are kept as tags."""

    trace_id: Name
    value: Annotated[int, Field(ge=-10, le=10)]
    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


@router.post("/v1/feedback")
@router.post("/feedback")
async def give_feedback(request: Request, key: Caller) -> dict[str, Any]:
    """Take one score, comment, demonstration or preference.

    The invocation need not be in the log yet. Feedback on another tenant's is taken and never seen.
    """
    body = await as_object(request)
    if "trace_id" in body and "metric_name" not in body:
        taken = await take(_portkeys(checked(body, PortkeyFeedbackIn), key), request, key)
        message = "Feedback successfully saved"
        return {"status": "success", "message": message, "feedback_ids": [taken]}
    given = checked(body, FeedbackIn)
    return {"feedback_id": await take(_ours(given, key), request, key, dryrun=given.dryrun)}


async def take(opinion: Opinion, request: Request, key: Key, *, dryrun: bool = False) -> UUID:
    """Record it, unless it is only to be checked. Raises InvalidRequest, RecordFailed."""
    feedback_id = new_id() if dryrun else await id_of(request, key)
    now: Callable[[], datetime] = request.app.state.now
    recorder: Recorder = request.app.state.recorder
    metrics = request.app.state.settings.metrics
    record = feedback(opinion, metrics, feedback_id=feedback_id, tenant=key.tenant, at=now())
    if not dryrun:
        await recorder.keep(record)
    return record.id


def named(name: str, key: Key) -> dict[str, Any]:
    """The target of a name from elsewhere: an answer of ours, else the episode called so."""
    answer = answer_named(name)
    if answer is not None:
        return {"target": "invocation", "target_id": answer}
    return {"target": "episode", "target_id": episode_of(key.tenant, name)}


def _ours(given: FeedbackIn, key: Key) -> Opinion:
    if (given.inference_id is None) == (given.episode_id is None):
        raise InvalidRequest("give either inference_id or episode_id")
    if given.inference_id is None:
        target: dict[str, Any] = {"target": "episode"}
        target["target_id"] = episode_of(key.tenant, given.episode_id or "")
    else:
        target = {"target": "invocation", "target_id": _invocation(given.inference_id)}
    return Opinion(name=given.metric_name, value=given.value, tags=given.tags, **target)


def _portkeys(given: PortkeyFeedbackIn, key: Key) -> Opinion:
    tags = {name: str(value) for name, value in given.metadata.items()}
    if given.weight is not None:
        tags["weight"] = str(given.weight)
    return Opinion(name=PORTKEY_METRIC, value=given.value, tags=tags, **named(given.trace_id, key))


def _invocation(inference_id: str) -> UUID:
    found = invocation_of(inference_id)
    if found is None:
        raise InvalidRequest(
            "inference_id must be an id that this gateway gave out (chatcmpl-... or its "
            "request id)",
            param="inference_id",
        )
    return found
