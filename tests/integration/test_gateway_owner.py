import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.integration.conftest import Gateway

COMPLETIONS = "/v1/chat/completions"
FORWARDED = [
    ("GET", COMPLETIONS),
    ("GET", f"{COMPLETIONS}?limit=2&metadata%5Ba%20b%5D=c&order=desc"),
    ("GET", f"{COMPLETIONS}/chatcmpl-1"),
    ("POST", f"{COMPLETIONS}/chatcmpl-1"),
    ("DELETE", f"{COMPLETIONS}/chatcmpl-1"),
    ("GET", f"{COMPLETIONS}/chatcmpl-1/messages?after=m"),
    ("POST", "/v1/erasures"),
    ("GET", "/v1/erasures"),
    ("GET", "/v1/erasures/e1"),
    ("GET", "/v1/usage?group_by=key"),
]


class Owner:
    """The other side: answers what it was asked, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200

    async def answer(self, request: Request) -> JSONResponse:
        url = request.scope["raw_path"].decode()
        if request.scope["query_string"]:
            url += "?" + request.scope["query_string"].decode()
        asked = {
            "method": request.method,
            "url": url,
            "tenants": request.headers.getlist("x-ratchet-tenant"),
            "scopes": request.headers.getlist("x-ratchet-scopes"),
            "keys": request.headers.getlist("x-ratchet-key"),
            "authorization": request.headers.get("authorization"),
            "body": (await request.body()).decode(),
        }
        self.asked.append(asked)
        return JSONResponse(asked, self.status, {"retry-after": "7"})

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        path.parent.mkdir(exist_ok=True)
        methods = ["GET", "POST", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self.answer, methods=methods)])
        server = uvicorn.Server(uvicorn.Config(app, uds=str(path), log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield
        server.should_exit = True
        await serving


@pytest.fixture
async def owner(gateway: Gateway) -> AsyncIterator[Owner]:
    owner = Owner()
    async with owner.listening(gateway.data / "run" / "learner.sock"):
        yield owner


async def test_the_owner_is_asked_what_the_client_asked_for_the_tenant_of_its_key(
    gateway: Gateway, owner: Owner
) -> None:
    for method, url in FORWARDED:
        content = json.dumps({"metadata": {"a": "é"}}) if method == "POST" else ""
        answer = await _ask(gateway, method, url, content=content)

        assert answer.status_code == 200
        assert answer.json() == owner.asked[-1]
        assert owner.asked[-1] == {
            "method": method,
            "url": url,
            "tenants": ["acme"],
            "scopes": ["admin,inference,train"],
            "keys": [gateway.keys.all()[0].key.id],
            "authorization": None,
            "body": content,
        }


async def test_nobody_names_a_tenant_but_by_a_key(gateway: Gateway, owner: Owner) -> None:
    await _ask(
        gateway, "GET", COMPLETIONS, headers={"x-ratchet-tenant": "umbrella", "x-ratchet-key": "k"}
    )

    assert owner.asked[0]["tenants"] == ["acme"]
    assert owner.asked[0]["keys"] == [gateway.keys.all()[0].key.id]


async def test_without_a_key_the_owner_is_not_asked(gateway: Gateway, owner: Owner) -> None:
    for method, url in FORWARDED:
        answer = await _ask(gateway, method, url, headers={"authorization": "Bearer nobody"})

        assert answer.status_code == 401

    assert owner.asked == []


async def test_what_the_owner_refuses_is_passed_on(gateway: Gateway, owner: Owner) -> None:
    owner.status = 404

    answer = await _ask(gateway, "GET", f"{COMPLETIONS}/chatcmpl-1")

    assert (answer.status_code, answer.headers["retry-after"]) == (404, "7")
    assert answer.json() == owner.asked[0]


async def test_an_id_stays_one_step_of_the_path(gateway: Gateway, owner: Owner) -> None:
    dots = await _ask(gateway, "GET", f"{COMPLETIONS}/%2e%2e")
    question = await _ask(gateway, "GET", f"{COMPLETIONS}/a%3Fb%23c%25d")
    slashes = await _ask(gateway, "GET", f"{COMPLETIONS}/..%2f..%2f..%2flog%2fselect")

    assert [dots.status_code, question.status_code, slashes.status_code] == [200, 200, 404]
    urls = [asked["url"] for asked in owner.asked]
    assert urls == [f"{COMPLETIONS}/..", f"{COMPLETIONS}/a%3Fb%23c%25d"]


async def test_a_body_over_the_limit_is_413_here_too(gateway: Gateway, owner: Owner) -> None:
    answer = await _ask(gateway, "POST", "/v1/erasures", content="x" * 200_000)

    assert answer.status_code == 413
    assert owner.asked == []


async def test_without_an_owner_it_is_503_until_there_is_one(gateway: Gateway) -> None:
    down = await _ask(gateway, "GET", COMPLETIONS)
    async with Owner().listening(gateway.data / "run" / "learner.sock"):
        up = await _ask(gateway, "GET", COMPLETIONS)
    gone = await _ask(gateway, "POST", "/v1/erasures", content="{}")
    chat = await gateway.post(COMPLETIONS, gateway.body())

    for answer in (down, gone):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["code"] == "log_unavailable"
        assert "owner of the log" in answer.json()["error"]["message"]
    assert up.status_code == 200
    assert chat.status_code == 200


async def _ask(gateway: Gateway, method: str, url: str, **more: Any) -> httpx.Response:
    headers = gateway.headers | more.pop("headers", {})
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return await client.request(method, url, headers=headers, **more)
