"""Exceptions become HTTP here, in OpenAI's envelope, and nowhere else."""

import logging
import re
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError, InvalidRequest, StateUnavailable

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2
_VALIDATION = re.compile(r"validation error.*?'msg': '([^']+)'", re.DOTALL)


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
    """The envelope as JSON."""
    return msgspec.json.encode(envelope(error))


def refusal(payload: bytes) -> bytes:
    """vLLM's own 4xx in OpenAI's terms: the field without its path, the sentence without Python.

    Its validation errors read ``1 validation error: {'loc': 'body.temperature', 'msg': ...}``.
    """
    try:
        error = msgspec.json.decode(payload)["error"]
        message, param = str(error["message"]), error.get("param")
    except (msgspec.DecodeError, KeyError, TypeError):
        return encoded(InvalidRequest(payload.decode("utf-8", "replace")))
    param = param.removeprefix("body.") if isinstance(param, str) else None
    if found := _VALIDATION.search(message):
        message = f"{param}: {found.group(1)}." if param else f"{found.group(1)}."
    return encoded(InvalidRequest(message, param=param))


def headers_of(error: GatewayError) -> dict[str, str]:
    """What else a client needs to know: when to come back, how to sign in."""
    if error.status == 503:
        return {"retry-after": str(RETRY_AFTER_S)}
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    return {}


def install(app: FastAPI) -> None:
    """Make every error of ``app`` speak the envelope."""

    @app.exception_handler(GatewayError)
    async def _ours(_: Request, error: GatewayError) -> JSONResponse:
        return JSONResponse(envelope(error), error.status, headers=headers_of(error))

    @app.exception_handler(SQLAlchemyError)
    async def _database(_: Request, failed: SQLAlchemyError) -> JSONResponse:
        logger.error("the database does not answer: %s", failed)
        error = StateUnavailable("The gateway's database does not answer. Please retry.")
        return JSONResponse(envelope(error), error.status, headers=headers_of(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or None
        body = {
            "message": first["msg"] if where is None else f"{where}: {first['msg']}",
            "type": "invalid_request_error",
            "param": where,
            "code": None,
        }
        return JSONResponse({"error": body}, 400)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        messages = {
            404: f"Unknown request URL: {request.method} {request.url.path}.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        body = {
            "message": messages.get(error.status_code, str(error.detail)),
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        return JSONResponse({"error": body}, error.status_code, headers=error.headers)
