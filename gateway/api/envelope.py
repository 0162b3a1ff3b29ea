"""Exceptions become HTTP here, in OpenAI's envelope, and nowhere else."""

from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError

RETRY_AFTER_S = 2


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
