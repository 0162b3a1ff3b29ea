"""What the owner of the log answers: stored completions, erasures, usage; the learner is asked.

The learner's socket trusts whoever reaches it, so the key is checked here, and it is told whose.
"""

from pathlib import Path
from urllib.parse import quote

import aiohttp
from fastapi import APIRouter, Request, Response
from yarl import URL

from gateway.api.body import whole
from gateway.api.caller import Admin, Caller, Known
from gateway.api.idempotency import id_of
from gateway.errors import LogUnavailable
from gateway.keys import Key, Scope

router = APIRouter()

TENANT = "x-ratchet-tenant"
KEY = "x-ratchet-key"
SCOPES = "x-ratchet-scopes"
ID = "x-ratchet-id"
"""The id of what the request makes: one that is sent again, by its ``Idempotency-Key``, has it too.
"""
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
                "The owner of the log does not answer, so stored completions, erasures and "
                "usage cannot be read or changed right now. Answers and feedback are taken and "
                "recorded all the same. Please retry; if it lasts, see whether the learner runs."
            ) from error


@router.get("/v1/chat/completions")
@router.get("/v1/chat/completions/{completion_id}")
@router.post("/v1/chat/completions/{completion_id}")
@router.delete("/v1/chat/completions/{completion_id}")
@router.get("/v1/chat/completions/{completion_id}/messages")
async def stored_completions(request: Request, key: Caller) -> Response:
    """The stored completions of the key's tenant."""
    return await _asked(request, key)


@router.post("/v1/erasures")
@router.get("/v1/erasures")
@router.get("/v1/erasures/{erasure_id}")
async def erasures(request: Request, key: Admin) -> Response:
    """Whom the key's tenant wants forgotten."""
    return await _asked(request, key)


@router.get("/v1/usage")
@router.get("/v1/organization/usage/completions")  # where OpenAI's clients look for it
async def usage(request: Request, key: Known) -> Response:
    """What the key has used; an admin's: what its tenant has."""
    if Scope.ADMIN not in key.scopes:
        key.require(Scope.INFERENCE)
    return await _asked(request, key)


async def _asked(request: Request, key: Key) -> Response:
    """The learner's answer."""
    owner: Owner = request.app.state.owner
    headers = {TENANT: key.tenant, KEY: key.id, SCOPES: ",".join(sorted(key.scopes))}
    if "content-type" in request.headers:
        headers["content-type"] = request.headers["content-type"]
    body = await whole(request)
    if request.method == "POST":
        headers[ID] = str(await id_of(request, key))
    return await owner.ask(request.method, _url(request), body, headers)


def _url(request: Request) -> URL:
    """The same path, as the route has understood it, and the same query."""
    path = quote(request.scope["path"])
    query = request.scope["query_string"].decode("latin-1")
    return URL(f"http://learner{path}" + (f"?{query}" if query else ""), encoded=True)
