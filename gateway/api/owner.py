"""What the owner of the log answers: stored completions and erasures, passed on to the learner.

The learner's socket trusts whoever reaches it, so the key is checked here and the tenant told.
"""

from pathlib import Path
from urllib.parse import quote

import aiohttp
from fastapi import APIRouter, Request, Response
from yarl import URL

from gateway.api.body import whole
from gateway.api.caller import Caller
from gateway.errors import LogUnavailable

router = APIRouter()

TENANT = "x-ratchet-tenant"
TIMEOUT_S = 60.0
_KEPT = ("content-type", "retry-after")


class Owner:
    """The way to the learner: its Unix socket, a connection a request, so that it may restart."""

    def __init__(self, path: Path) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(path), force_close=True),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self, method: str, url: URL, body: bytes, headers: dict[str, str]) -> Response:
        """Its answer, whatever it is. Raises LogUnavailable when there is none."""
        try:
            async with self._session.request(method, url, data=body, headers=headers) as answer:
                kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
                return Response(await answer.read(), answer.status, headers=kept)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise LogUnavailable(
                "The owner of the log does not answer, so stored completions and erasures cannot "
                "be read or changed right now. Answers and feedback are taken and recorded all "
                "the same. Please retry; if it lasts, see whether the learner runs."
            ) from error


@router.get("/v1/chat/completions")
@router.get("/v1/chat/completions/{completion_id}")
@router.post("/v1/chat/completions/{completion_id}")
@router.delete("/v1/chat/completions/{completion_id}")
@router.get("/v1/chat/completions/{completion_id}/messages")
@router.post("/v1/erasures")
@router.get("/v1/erasures")
@router.get("/v1/erasures/{erasure_id}")
async def ask_owner(request: Request, key: Caller) -> Response:
    """The learner's answer for the key's tenant."""
    owner: Owner = request.app.state.owner
    headers = {TENANT: key.tenant}
    if "content-type" in request.headers:
        headers["content-type"] = request.headers["content-type"]
    return await owner.ask(request.method, _url(request), await whole(request), headers)


def _url(request: Request) -> URL:
    """The same path, as the route has understood it, and the same query."""
    path = quote(request.scope["path"])
    query = request.scope["query_string"].decode("latin-1")
    return URL(f"http://learner{path}" + (f"?{query}" if query else ""), encoded=True)
