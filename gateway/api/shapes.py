"""What answers look like, as JSON Schema, for ``/openapi.json``.

Engines and the log's owner make these answers, so no model of ours does: fields that they add
are as true as those named here.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_COUNT: Schema = {"type": ["integer", "null"]}
TRUTH: Schema = {"type": "boolean"}
TAGS: Schema = {"type": "object", "additionalProperties": TEXT}


def ref(name: str) -> Schema:
    """The schema of that name, among the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def thing(**fields: Schema) -> Schema:
    """An object with these fields, and perhaps others."""
    return {"type": "object", "required": list(fields), "properties": fields}


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values)}


def many(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def page(of: Schema) -> Schema:
    """OpenAI's list, a page of it."""
    return thing(
        object=one_of("list"),
        data=many(of),
        first_id=MAYBE_TEXT,
        last_id=MAYBE_TEXT,
        has_more=TRUTH,
    )


_USAGE = thing(prompt_tokens=COUNT, total_tokens=COUNT)
_CHOICE = thing(index=COUNT, finish_reason=MAYBE_TEXT)

SCHEMAS: Mapping[str, Schema] = {
    "Error": thing(
        error=thing(message=TEXT, type=TEXT, param=MAYBE_TEXT, code=MAYBE_TEXT),
    ),
    "AnthropicError": thing(
        type=one_of("error"),
        error=thing(
            type=one_of(
                "invalid_request_error",
                "authentication_error",
                "permission_error",
                "not_found_error",
                "request_too_large",
                "rate_limit_error",
                "api_error",
                "overloaded_error",
            ),
            message=TEXT,
        ),
    ),
    "Event": {
        "type": "object",
        "description": "One server-sent event. Its data are JSON, or the word [DONE].",
        "required": ["data"],
        "properties": {"event": TEXT, "data": TEXT},
    },
    "ChatCompletion": thing(
        id=TEXT,
        object=one_of("chat.completion"),
        created=COUNT,
        model=TEXT,
        choices=many({"allOf": [_CHOICE, thing(message={"type": "object"})]}),
        usage=_USAGE,
    ),
    "Completion": thing(
        id=TEXT,
        object=one_of("text_completion"),
        created=COUNT,
        model=TEXT,
        choices=many({"allOf": [_CHOICE, thing(text=TEXT)]}),
        usage=_USAGE,
    ),
    "Response": thing(
        id=TEXT,
        object=one_of("response"),
        created_at=COUNT,
        status=TEXT,
        model=TEXT,
        output=many({"type": "object"}),
    ),
    "EmbeddingList": thing(
        object=one_of("list"),
        model=TEXT,
        data=many(thing(index=COUNT, embedding={"type": ["array", "string"]})),
        usage=_USAGE,
    ),
    "Message": thing(
        id=TEXT,
        type=one_of("message"),
        role=one_of("assistant"),
        model=TEXT,
        content=many(thing(type=TEXT)),
        usage=thing(input_tokens=COUNT, output_tokens=COUNT),
    ),
    "StoredCompletion": thing(
        id=TEXT,
        object=one_of("chat.completion"),
        created=COUNT,
        request_id={"type": "string", "format": "uuid"},
        choices=many({"type": "object"}),
        metadata=TAGS,
    ),
    "StoredMessage": thing(id=TEXT, content=MAYBE_TEXT, content_parts={"type": ["array", "null"]}),
    "DeletedCompletion": thing(
        id=TEXT, object=one_of("chat.completion.deleted"), deleted={"const": True}
    ),
    "MetadataIn": {
        "type": "object",
        "required": ["metadata"],
        "properties": {
            "metadata": {
                "type": ["object", "null"],
                "maxProperties": 16,
                "propertyNames": {"maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            }
        },
    },
    "ErasureIn": {
        "type": "object",
        "description": "Whom to forget: one of `user`, `subject_id` and `invocation_id`.",
        "additionalProperties": False,
        "properties": {
            "user": {"type": ["string", "null"], "minLength": 1},
            "subject_id": {"type": ["string", "null"], "pattern": "^[0-9a-f]{32}$"},
            "invocation_id": MAYBE_TEXT,
            "reason": {"type": ["string", "null"], "maxLength": 1000},
            "remove_now": TRUTH,
        },
    },
    "Erasure": thing(
        id=TEXT,
        object=one_of("erasure"),
        created_at=COUNT,
        status=one_of("deleted", "removed"),
        removed_at=MAYBE_COUNT,
        tenant=TEXT,
        scope=one_of("rows", "bodies"),
        subject_id=MAYBE_TEXT,
        invocation_id=MAYBE_TEXT,
        reason=MAYBE_TEXT,
        invocations=MAYBE_COUNT,
        feedback=COUNT,
        datasets=many({"type": "object"}),
        adapters=many(thing(alias=TEXT, version=COUNT, served_name=TEXT, stage=TEXT)),
    ),
    "Usage": thing(
        object=one_of("page"),
        data=many(
            thing(
                object=one_of("bucket"),
                start_time=COUNT,
                end_time=COUNT,
                results=many(
                    thing(
                        object=one_of("organization.usage.completions.result"),
                        api_key_id=MAYBE_TEXT,
                        model=MAYBE_TEXT,
                        adapter=MAYBE_TEXT,
                        arm=MAYBE_TEXT,
                        task=MAYBE_TEXT,
                        operation=MAYBE_TEXT,
                        user_id=MAYBE_TEXT,
                        input_tokens=COUNT,
                        output_tokens=COUNT,
                        input_cached_tokens=COUNT,
                        output_reasoning_tokens=COUNT,
                        num_model_requests=COUNT,
                        cost={"type": ["number", "null"], "minimum": 0},
                    )
                ),
            )
        ),
        has_more=TRUTH,
        next_page=MAYBE_TEXT,
    ),
    "FeedbackTaken": thing(feedback_id={"type": "string", "format": "uuid"}),
    "PortkeyFeedbackTaken": thing(status=one_of("success"), message=TEXT, feedback_ids=many(TEXT)),
    "ScoreTaken": thing(id=TEXT),
    "Live": thing(live=TRUTH),
    "Ready": thing(
        ready=TRUTH,
        draining=TRUTH,
        aliases={"type": "object", "additionalProperties": TRUTH},
        state=thing(following=TRUTH, age_s={"type": "number"}),
        spool=thing(waiting_bytes=COUNT, dropped=COUNT, error=MAYBE_TEXT),
    ),
}
