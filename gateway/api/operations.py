"""The operations of ``/openapi.json`` beside the surfaces: one line of the table each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from gateway.api.feedback import FeedbackIn, PortkeyFeedbackIn
from gateway.api.idempotency import HEADER, MAX_LENGTH
from gateway.api.key_shapes import DeletedOut, KeyIn, KeyOut, KeysOut, NewKeyOut, RotationIn
from gateway.api.models import ModelOut, ModelsOut
from gateway.api.scores import ScoreIn
from gateway.api.shapes import TEXT, Schema, page, ref

MODELS: Sequence[tuple[type[BaseModel], Literal["validation", "serialization"]]] = (
    *((kind, "validation") for kind in (FeedbackIn, PortkeyFeedbackIn, ScoreIn, KeyIn, RotationIn)),
    *((kind, "serialization") for kind in (ModelOut, ModelsOut, KeyOut, NewKeyOut, KeysOut)),
    (DeletedOut, "serialization"),
)
"""Whose schemas pydantic makes, and for which way."""

JSON = "application/json"
_READ = (400, 401, 403, 408, 413, 429, 503)
_FOUND = (*_READ, 404)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    tag: str
    summary: str
    answer: Schema
    errors: tuple[int, ...] = _READ
    scope: str | None = "inference"
    """What the key must open; None where none is asked for."""
    body: Schema | None = None
    body_required: bool = True
    parameters: tuple[Schema, ...] = ()
    media: str = JSON
    also: Mapping[int, Schema] | None = None
    """Answers of other statuses that are no errors."""


def query(name: str, schema: Schema, what: str = "") -> Schema:
    """A parameter of the URL."""
    return {"name": name, "in": "query", "schema": schema, "description": what}


def header(name: str, schema: Schema, what: str) -> Schema:
    """A header of the request."""
    return {"name": name, "in": "header", "schema": schema, "description": what}


_ONCE = header(
    HEADER, {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH}, "Sent again, it is one."
)
_PAGE = (
    query("after", TEXT, "The last id of the page before."),
    query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
)
_ORDERED = (*_PAGE, query("order", {"enum": ["asc", "desc"], "default": "asc"}))
_COMPLETION = "/v1/chat/completions/{completion_id}"
_SECONDS: Schema = {"type": "integer", "minimum": 0, "maximum": 253_402_300_799}
_GROUPS = ("api_key_id", "model", "adapter", "arm", "task", "operation", "user_id")
_GROUPED: Schema = {"type": "array", "items": {"enum": _GROUPS}}
_USAGE: Mapping[str, Any] = {
    "tag": "usage",
    "summary": "What calls took: your key's own, or with an admin's your tenant's",
    "answer": ref("Usage"),
    "parameters": (
        query("start_time", _SECONDS, "Seconds since 1970; where left out, a page ends now."),
        query("end_time", _SECONDS, "Exclusive; now where left out."),
        query("bucket_width", {"enum": ["1m", "1h", "1d"], "default": "1d"}),
        query("group_by", _GROUPED),
        query("group_by[]", _GROUPED, "The same, as OpenAI's clients spell it."),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 1440}, "Buckets in a page."),
        query("page", TEXT, "The `next_page` of the page before."),
    ),
}
_FEEDBACK: Mapping[str, Any] = {
    "tag": "feedback",
    "summary": "Say how good an answer or an episode was",
    "body": {"anyOf": [ref("FeedbackIn"), ref("PortkeyFeedbackIn")]},
    "answer": {"anyOf": [ref("FeedbackTaken"), ref("PortkeyFeedbackTaken")]},
    "parameters": (_ONCE,),
}

OPERATIONS: Sequence[Operation] = (
    Operation("get", "/v1/models", "models", "Names that `model` may say", ref("ModelsOut")),
    Operation("get", "/v1/models/{name}", "models", "What one name means", ref("ModelOut"), _FOUND),
    Operation(
        "get",
        "/v1/chat/completions",
        "stored completions",
        "List those asked for with `store`",
        page(ref("StoredCompletion")),
        parameters=(
            *_ORDERED,
            query("model", TEXT),
            {
                **query("metadata", {"type": "object", "additionalProperties": TEXT}),
                "style": "deepObject",
                "explode": True,
            },
        ),
    ),
    Operation(
        "get", _COMPLETION, "stored completions", "Read one", ref("StoredCompletion"), _FOUND
    ),
    Operation(
        "post",
        _COMPLETION,
        "stored completions",
        "Replace its metadata",
        ref("StoredCompletion"),
        _FOUND,
        body=ref("MetadataIn"),
        parameters=(_ONCE,),
    ),
    Operation(
        "delete",
        _COMPLETION,
        "stored completions",
        "Take its bodies out of the log",
        ref("DeletedCompletion"),
        _FOUND,
    ),
    Operation(
        "get",
        f"{_COMPLETION}/messages",
        "stored completions",
        "What was asked, message by message",
        page(ref("StoredMessage")),
        _FOUND,
        parameters=_ORDERED,
    ),
    Operation(method="post", path="/v1/feedback", **_FEEDBACK),
    Operation(method="post", path="/feedback", **_FEEDBACK),
    Operation(
        "post",
        "/api/public/scores",
        "feedback",
        "The same in Langfuse's shape",
        ref("ScoreTaken"),
        body=ref("ScoreIn"),
        parameters=(_ONCE,),
    ),
    Operation(
        "post",
        "/v1/keys",
        "keys",
        "Make a key no wider than your own",
        ref("NewKeyOut"),
        (*_READ, 409),
        "admin",
        body=ref("KeyIn"),
        parameters=(_ONCE,),
    ),
    Operation("get", "/v1/keys", "keys", "List your tenant's", ref("KeysOut"), scope="admin"),
    Operation("get", "/v1/keys/{key_id}", "keys", "What one may", ref("KeyOut"), _FOUND, "admin"),
    Operation(
        "delete", "/v1/keys/{key_id}", "keys", "Revoke one", ref("DeletedOut"), _FOUND, "admin"
    ),
    Operation(
        "post",
        "/v1/keys/{key_id}/rotate",
        "keys",
        "Give it a new secret",
        ref("NewKeyOut"),
        _FOUND,
        "admin",
        body=ref("RotationIn"),
        body_required=False,
    ),
    Operation(
        "post",
        "/v1/erasures",
        "erasures",
        "Forget an end user, or one call",
        ref("Erasure"),
        _FOUND,
        "admin",
        body=ref("ErasureIn"),
        parameters=(_ONCE,),
    ),
    Operation(
        "get",
        "/v1/erasures",
        "erasures",
        "List them, newest first",
        page(ref("Erasure")),
        _READ,
        "admin",
        parameters=(query("after", {"type": "string", "format": "uuid"}), _PAGE[1]),
    ),
    Operation(
        "get",
        "/v1/erasures/{erasure_id}",
        "erasures",
        "How far one is",
        ref("Erasure"),
        _FOUND,
        "admin",
    ),
    Operation(method="get", path="/v1/usage", **_USAGE),
    Operation(method="get", path="/v1/organization/usage/completions", **_USAGE),
    Operation("get", "/health/live", "health", "Whether it runs", ref("Live"), (), None),
    Operation(
        "get",
        "/health/ready",
        "health",
        "Whether every alias can be answered",
        ref("Ready"),
        (),
        None,
        also={503: ref("Ready")},
    ),
    Operation(
        "get",
        "/metrics",
        "health",
        "What was counted, for Prometheus",
        TEXT,
        (),
        None,
        media="text/plain",
    ),
)


def path_parameters(path: str) -> Iterator[Schema]:
    """The parameters that stand in a path."""
    for part in path.split("/"):
        if part.startswith("{"):
            name = part.strip("{}")
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
