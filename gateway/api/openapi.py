"""``/openapi.json``: made from the same data that the surfaces judge requests by."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from gateway.api.operations import JSON, MODELS, OPERATIONS, Operation, header, path_parameters
from gateway.api.shapes import SCHEMAS, TEXT, Schema, ref
from gateway.surface import SURFACES, Surface

_WHY = {
    400: "The request is not what this takes; the error names the field.",
    401: "No key, or none that opens.",
    403: "The key may not do this, or not use this model.",
    404: "There is no such thing.",
    408: "The request did not arrive in time.",
    409: "Not with what is there already.",
    413: "The body is over the limit.",
    429: "Too much at once or in too short a time, or a budget is used up.",
    503: "Nobody can answer right now. Please retry.",
    504: "The engine took longer than it may.",
}
_HOT_ERRORS = (400, 401, 403, 404, 408, 413, 429, 503, 504)
_SUMMARIES = {
    "/v1/chat/completions": ("ChatCompletion", "Answer a conversation"),
    "/v1/completions": ("Completion", "Go on with a text"),
    "/v1/responses": ("Response", "Answer, in OpenAI's newer shape"),
    "/v1/embeddings": ("EmbeddingList", "Turn texts into vectors, if an engine serves that"),
    "/v1/messages": ("Message", "Answer, in Anthropic's shape"),
}
_CONTEXT = (
    header("x-ratchet-episode-id", {"type": "string", "maxLength": 512}, "What the call is of."),
    header("x-ratchet-conversation-id", {"type": "string", "maxLength": 512}, "Its conversation."),
    header("x-ratchet-parent-id", TEXT, "The id of the answer that led to it."),
    header("x-ratchet-train", TEXT, "Anything but `true` keeps it from being learnt from."),
    header("traceparent", TEXT, "W3C trace context."),
)
_SECURITY: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "As Anthropic's clients send it.",
    },
    "langfuse": {
        "type": "http",
        "scheme": "basic",
        "description": "As Langfuse's clients send it: the key is the password.",
    },
}


_SAYS = [{"role": "user", "content": "Where is my parcel?"}]
_EXAMPLES: Mapping[str, Schema] = {
    "/v1/chat/completions": {"messages": _SAYS, "metadata": {"task": "refund"}},
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 16},
    "/v1/responses": {"input": "Where is my parcel?"},
    "/v1/embeddings": {"input": ["one text", "another"]},
    "/v1/messages": {"messages": _SAYS, "max_tokens": 64},
}
_MODEL = "helpdesk"
_ABOUT = """An OpenAI-compatible gateway that learns from its own traffic.

Send a key as `Authorization: Bearer KEY` or `x-api-key: KEY`; `ratchet keys create NAME` makes one.
Give `base_url` as this address and `/v1` to OpenAI's clients, as this address to Anthropic's.
"""


def install(app: FastAPI) -> None:
    """Have ``app`` tell this document."""
    made = document()
    app.openapi = lambda: made  # type: ignore[method-assign]  # as FastAPI's own manual does


def document() -> dict[str, Any]:
    """The whole of it."""
    paths: dict[str, dict[str, Any]] = {}
    for surface in SURFACES.values():
        paths.setdefault(surface.path, {})["post"] = _surface(surface)
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ratchet", "version": version("ratchet"), "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": dict(_schemas()), "securitySchemes": _SECURITY},
    }


def _surface(surface: Surface) -> dict[str, Any]:
    answer, summary = _SUMMARIES[surface.path]
    content: dict[str, Any] = {JSON: {"schema": ref(answer)}}
    if "stream" in surface.fields.passed:
        content["text/event-stream"] = {"schema": ref("Event")}
    return {
        "operationId": f"post{surface.path}".replace("/", "_"),
        "tags": ["inference"],
        "summary": summary,
        "description": (surface.__doc__ or "") + _refusals(surface),
        "security": [{"bearer": []}, {"apiKey": []}],
        "parameters": list(_CONTEXT),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref(_name(surface)), "examples": _examples(surface)}},
        },
        "responses": {
            "200": {
                "description": "The answer, whole or as events.",
                "headers": _HEADERS,
                "content": content,
            },
            **_errors(_HOT_ERRORS, surface=surface),
        },
    }


def _examples(surface: Surface) -> dict[str, Any]:
    whole = {"model": _MODEL, **_EXAMPLES[surface.path]}
    if "stream" not in surface.fields.passed:
        return {"whole": {"value": whole}}
    return {"whole": {"value": whole}, "streamed": {"value": whole | {"stream": True}}}


def _name(surface: Surface) -> str:
    return f"{type(surface).__name__}Request"


def _refusals(surface: Surface) -> str:
    lines = [f"- `{name}`: {why.why}" for name, why in sorted(surface.fields.refused.items())]
    return "\n\nRefused by name:\n" + "\n".join(lines)


_UUID = {"type": "string", "format": "uuid"}
_DIGITS = {"type": "string", "pattern": r"^\d+$"}
_NUMBER = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_HEADERS: Mapping[str, Schema] = {
    "x-request-id": {"required": True, "schema": _UUID, "description": "The call's id."},
    "openai-processing-ms": {"required": True, "schema": _DIGITS},
    "x-ratchet-overhead-ms": {"required": True, "schema": _NUMBER},
    "x-ratchet-alias": {"required": True, "schema": TEXT},
    "x-ratchet-engine": {"required": True, "schema": TEXT},
    "x-ratchet-adapter": {"schema": TEXT, "description": "Where an adapter answered."},
    "x-ratchet-version": {"schema": _DIGITS, "description": "The adapter's."},
    **{
        f"x-ratelimit-{which}-{what}": {"schema": schema, "description": "For keys with limits."}
        for which, schema in (("limit", _DIGITS), ("remaining", _DIGITS), ("reset", TEXT))
        for what in ("requests", "tokens")
    },
}
_BY_STATUS: Mapping[int, Mapping[str, Schema]] = {
    401: {"www-authenticate": {"required": True, "schema": TEXT}},
    429: {"retry-after": {"required": True, "schema": _DIGITS}},
    503: {"retry-after": {"required": True, "schema": _DIGITS}},
}


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": f"{operation.method}{operation.path}".translate(_PLAIN),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*path_parameters(operation.path), *operation.parameters],
        "responses": {
            "200": _answer("Done.", operation.answer, operation.media),
            **{
                str(status): _answer(_WHY[status], schema, operation.media)
                for status, schema in (operation.also or {}).items()
            },
            **_errors(operation.errors),
        },
    }
    if operation.body is not None:
        content = {JSON: {"schema": operation.body}}
        told["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.scope is None:
        return told
    ways: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
    if operation.path == "/api/public/scores":
        ways.append({"langfuse": []})
    return told | {"security": ways, "description": f"For keys of the scope `{operation.scope}`."}


_PLAIN = str.maketrans({"/": "_", "{": None, "}": None})


def _answer(description: str, schema: Schema, media: str) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _errors(statuses: Iterable[int], surface: Surface | None = None) -> dict[str, Any]:
    name = "AnthropicError" if surface and surface.path == "/v1/messages" else "Error"
    return {
        str(status): _answer(_WHY[status], ref(name), JSON)
        | {"headers": _BY_STATUS.get(status, {})}
        for status in sorted(statuses)
    }


def _schemas() -> Iterable[tuple[str, Any]]:
    yield from SCHEMAS.items()
    _, made = models_json_schema(MODELS, ref_template="#/components/schemas/{model}")
    yield from made["$defs"].items()
    for surface in SURFACES.values():
        fields = surface.fields
        yield (
            _name(surface),
            {
                "type": "object",
                "required": list(fields.required),
                "properties": {**fields.passed, **fields.taken},
                "additionalProperties": False,
            },
        )
