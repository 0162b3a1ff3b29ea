"""Errors become HTTP here, in OpenAI's envelope: the gateway passes them on as they are."""

from math import ceil

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.errors import BadQuery, GatewayError, SpoolError, StoreError

RETRY_AFTER_S = 2


def answer(
    status: int,
    message: str,
    *,
    type: str = "invalid_request_error",  # noqa: A002 - OpenAI's word
    param: str | None = None,
    code: str | None = None,
) -> JSONResponse:
    """``{"error": {message, type, param, code}}``."""
    body = {"error": {"message": message, "type": type, "param": param, "code": code}}
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse(body, status, headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` speak the envelope."""

    @app.exception_handler(GatewayError)
    async def _ours(_: Request, error: GatewayError) -> JSONResponse:
        refusal = answer(
            error.status, error.message, type=error.type, param=error.param, code=error.code
        )
        if error.retry_after_s is not None:
            refusal.headers["retry-after"] = str(ceil(error.retry_after_s))
        return refusal

    @app.exception_handler(BadQuery)
    async def _bad_query(_: Request, error: BadQuery) -> JSONResponse:
        return answer(400, str(error), code="bad_query")

    @app.exception_handler(OSError)
    @app.exception_handler(SpoolError)
    @app.exception_handler(StoreError)
    async def _unwell(_: Request, error: Exception) -> JSONResponse:
        return answer(503, str(error), type="server_error", code="log_unavailable")

    @app.exception_handler(Exception)
    async def _ours_to_mend(_: Request, __: Exception) -> JSONResponse:
        # Whatever it was is in the log of this process: Starlette raises it again.
        message = "The log's owner failed at this request; its log says why."
        return answer(500, message, type="server_error", code="internal_error")

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        message = first["msg"].removeprefix("Value error, ")
        return answer(400, f"{where}: {message}" if where else message, param=where or None)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        messages = {
            404: f"Unknown request URL: {request.method} {request.url.path}.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        return answer(error.status_code, messages.get(error.status_code, str(error.detail)))
