"""Exceptions become HTTP here, in OpenAI's envelope, and nowhere else."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError, StateUnavailable
from gateway.surface.envelope import envelope, headers_of

logger = logging.getLogger(__name__)

_WORDS = {
    "extra_forbidden": "there is no such field; /openapi.json says which there are",
    "missing": "is missing",
}
"""Pydantic's sentences that say little, in words that say what to do."""


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

    @app.exception_handler(Exception)
    async def _ours_alone(_: Request, __: Exception) -> JSONResponse:
        # uvicorn logs it: it is raised again.
        error = GatewayError("The gateway failed. It has logged why.")
        return JSONResponse(envelope(error), error.status)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or None
        said = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
        body = {
            "message": said if where is None else f"{where}: {said}",
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
