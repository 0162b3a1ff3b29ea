"""Errors on the wire, in OpenAI's envelope and in Anthropic's."""

import math
import re
from typing import Any

import msgspec

from gateway.errors import (
    BudgetSpent,
    Conflict,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
)

RETRY_AFTER_S = 2
_VALIDATION = re.compile(r"validation error.*?'msg': '([^']+)'", re.DOTALL)
_NO_ENDPOINT = {"detail": "Not Found"}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def envelope(error: GatewayError) -> dict[str, Any]:
    """``{"error": {message, type, param, code}}``."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def encoded(error: GatewayError) -> bytes:
    """OpenAI's envelope as JSON."""
    return msgspec.json.encode(envelope(error))


def anthropic(error: GatewayError) -> bytes:
    """Anthropic's: ``{"type": "error", "error": {type, message}}``."""
    kind = _ANTHROPIC.get(error.status, "api_error")
    if isinstance(error, Overloaded):
        kind = "overloaded_error"
    message = f"{error.param}: {error.message}" if error.param else error.message
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def refused(payload: bytes, path: str) -> InvalidRequest:
    """vLLM's own 4xx in our terms: the field without its path, the sentence without Python.

    Its validation errors read ``1 validation error: {'loc': 'body.temperature', 'msg': ...}``. An
    engine has only the endpoints that its model is made for.
    """
    try:
        told = msgspec.json.decode(payload)
        if told == _NO_ENDPOINT:
            return InvalidRequest(
                f"This model does not answer {path}: its engine serves it for something else.",
                param="model",
            )
        error = told["error"]
        message, param = str(error["message"]), error.get("param")
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return InvalidRequest(payload.decode("utf-8", "replace"))
    param = param.removeprefix("body.") if isinstance(param, str) else None
    if found := _VALIDATION.search(message):
        message = f"{param}: {found.group(1)}." if param else f"{found.group(1)}."
    return InvalidRequest(message, param=param)


def headers_of(error: GatewayError) -> dict[str, str]:
    """What else a client needs to know: when to come back, how to sign in."""
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    headers = {}
    if error.retry_after_s is not None or error.status == 503:
        seconds = RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers["retry-after"] = str(max(1, math.ceil(seconds)))
    if error.retry_after_s is not None:
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    if isinstance(error, RateLimited):
        headers |= {name.decode(): value.decode() for name, value in error.rates}
    if isinstance(error, (BudgetSpent, Conflict)):
        # OpenAI's clients would try twice more, in vain.
        headers["x-should-retry"] = "false"
    return headers
