from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.cors import EXPOSED, Cors

PAGE = "https://app.example.com"
EXPOSE = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())


def test_a_page_of_the_list_may_read_hot_answers() -> None:
    cors = Cors.of([PAGE])

    assert cors.headers(PAGE.encode()) == [
        (b"access-control-allow-origin", PAGE.encode()),
        EXPOSE,
        (b"vary", b"Origin"),
    ]
    assert cors.headers(b"https://evil.example.com") == cors.headers(None) == []


def test_a_star_is_every_page() -> None:
    cors = Cors.of(["*"])

    assert cors.headers(b"https://any.example.com") == [
        (b"access-control-allow-origin", b"*"),
        EXPOSE,
        (b"vary", b"Origin"),
    ]
    assert cors.headers(None) == []


def test_without_a_list_no_page_is_told_anything() -> None:
    assert Cors.of(()).headers(PAGE.encode()) == []


async def asked(cors: Cors, method: str, **headers: str) -> httpx.Response:
    app = FastAPI()
    cors.install(app)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {}

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.request(method, "/v1/models", headers=headers)


@pytest.mark.parametrize(("origin", "status"), [(PAGE, 200), ("https://evil.example.com", 400)])
async def test_a_preflight_is_answered_for_the_pages_of_the_list(origin: str, status: int) -> None:
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }

    answer = await asked(Cors.of([PAGE]), "OPTIONS", origin=origin, **wanted)

    allowed = answer.headers.get("access-control-allow-origin")
    assert (answer.status_code, allowed) == (status, PAGE if status == 200 else None)
    if status == 200:
        granted = answer.headers["access-control-allow-headers"]
        assert granted == wanted["access-control-request-headers"]


async def test_both_sides_of_the_gateway_say_the_same() -> None:
    for cors, origin in ((Cors.of([PAGE]), PAGE), (Cors.of(["*"]), "https://any.example.com")):
        answer = await asked(cors, "GET", origin=origin)

        said = {
            (name, value)
            for name, value in answer.headers.raw
            if name.startswith((b"access-control", b"vary"))
        }
        assert said == set(cors.headers(origin.encode()))


async def test_without_a_list_a_preflight_is_nothing_special() -> None:
    wanted = {"access-control-request-method": "POST"}

    answer = await asked(Cors.of(()), "OPTIONS", origin=PAGE, **wanted)

    assert answer.status_code == 405
