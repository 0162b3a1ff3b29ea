"""``/v1/keys`` of a running gateway, and what keys open there."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.keys import EVERYTHING, Budget, KeyStore, Limits, Rights, Scope, Window
from tests.integration.conftest import Gateway

ADMIN = frozenset({Scope.ADMIN, Scope.INFERENCE})


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers=gateway.headers) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def holder(keys: KeyStore, *, tenant: str = "acme", **rights: Any) -> dict[str, str]:
    """The headers of a new key."""
    return bearer(keys.create("k", tenant=tenant, at=datetime.now(UTC), **Rights(**rights))[1])


def until_refused(client: httpx.Client, headers: dict[str, str]) -> httpx.Response:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = client.get("/v1/models", headers=headers)
        if answer.status_code == 401:
            return answer
    raise TimeoutError("the key opens still")


def test_a_key_is_made_used_listed_rotated_and_revoked(client: httpx.Client) -> None:
    made = client.post("/v1/keys", json={"name": "ci", "models": ["helpdesk"]}).json()
    used = client.get("/v1/models", headers=bearer(made["key"]))
    listed = client.get("/v1/keys").json()
    one = client.get(f"/v1/keys/{made['id']}").json()
    rotated = client.post(f"/v1/keys/{made['id']}/rotate", json={"grace": 3600}).json()
    both = [client.get("/v1/models", headers=bearer(k["key"])) for k in (made, rotated)]
    deleted = client.delete(f"/v1/keys/{made['id']}")
    refused = [until_refused(client, bearer(k["key"])) for k in (made, rotated)]
    gone = client.delete(f"/v1/keys/{made['id']}")

    without = {name: value for name, value in made.items() if name != "key"}
    assert without == {
        "object": "key",
        "id": made["id"],
        "name": "ci",
        "tenant": "acme",
        "scopes": ["inference"],
        "models": ["helpdesk"],
        "train": True,
        "limits": dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrency")),
        "budgets": [],
        "used": [],
        "within": None,
        "created_at": made["created_at"],
        "expires_at": None,
        "revoked_at": None,
    }
    assert made["key"].startswith("sk-ratchet-")
    assert used.status_code == 200
    assert [key["name"] for key in listed["data"]] == ["test", "ci"]
    assert listed["data"][1] == one == without
    assert "key" not in one
    assert [answer.status_code for answer in both] == [200, 200]
    assert deleted.json() == {"object": "key.deleted", "id": made["id"], "deleted": True}
    assert f"...{made['key'][-4:]}" in refused[0].json()["error"]["message"]
    assert made["key"][:-4] not in refused[0].text
    assert gone.status_code == 404


def test_a_request_sent_again_makes_no_second_key(client: httpx.Client) -> None:
    headers = {"idempotency-key": "deploy-17"}

    first = client.post("/v1/keys", json={"name": "ci"}, headers=headers)
    again = client.post("/v1/keys", json={"name": "ci"}, headers=headers)
    other = client.post("/v1/keys", json={"name": "ci"}, headers={"idempotency-key": "deploy-18"})

    assert (first.status_code, again.status_code, other.status_code) == (200, 409, 200)
    assert first.json()["id"] in again.json()["error"]["message"]
    assert len(client.get("/v1/keys").json()["data"]) == 3


def test_what_is_left_out_is_as_its_makers(gateway: Gateway, client: httpx.Client) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    maker = holder(
        gateway.keys,
        scopes=ADMIN,
        models=frozenset({"helpdesk"}),
        train=False,
        limits=Limits(60, None, 4),
        budgets=(Budget(Window.DAY, money=5.0),),
        expires_at=end,
    )

    order = {"name": "child", "limits": {"requests_per_minute": 6}, "expires_in": 60}
    child = client.post("/v1/keys", json=order, headers=maker).json()

    assert (child["scopes"], child["models"], child["train"]) == (
        ["inference"],
        ["helpdesk"],
        False,
    )
    assert list(child["limits"].values()) == [6, None, 4]
    assert child["budgets"] == [{"window": "day", "tokens": None, "money": 5.0}]
    assert child["expires_at"] == pytest.approx(child["created_at"] + 60, abs=1)


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ({"scopes": ["inference", "train"]}, "scopes"),
        ({"models": None}, "models"),
        ({"models": ["helpdesk", "base"]}, "models"),
        ({"train": True}, "train"),
        ({"limits": {"concurrency": None}}, "limits.concurrency"),
        ({"limits": {"requests_per_minute": 61}}, "limits.requests_per_minute"),
        ({"budgets": []}, "budgets"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_a_key_never_makes_a_wider_key(
    gateway: Gateway, client: httpx.Client, asked: dict[str, Any], more: str
) -> None:
    maker = holder(
        gateway.keys,
        scopes=ADMIN,
        models=frozenset({"helpdesk"}),
        train=False,
        limits=Limits(60, None, 4),
        budgets=(Budget(Window.DAY, money=5.0),),
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )

    refused = client.post("/v1/keys", json={"name": "child"} | asked, headers=maker)

    assert refused.status_code == 403
    assert refused.json()["error"]["message"].endswith(f"be in: {more}.")
    assert len(gateway.keys.all()) == 2


def test_a_wider_key_is_not_taken_by_rotating_it(gateway: Gateway, client: httpx.Client) -> None:
    wide, secret = gateway.keys.create("w", tenant="acme", at=datetime.now(UTC), scopes=EVERYTHING)
    narrow = holder(gateway.keys, scopes=ADMIN)

    refused = client.post(f"/v1/keys/{wide.id}/rotate", headers=narrow)
    itself = client.post(f"/v1/keys/{wide.id}/rotate", headers=bearer(secret))

    assert (refused.status_code, itself.status_code) == (403, 200)


def test_another_tenants_keys_are_unknown(gateway: Gateway, client: httpx.Client) -> None:
    foreign, _ = gateway.keys.create("f", tenant="umbrella", at=datetime.now(UTC))
    path = f"/v1/keys/{foreign.id}"

    asked = [client.get(path), client.delete(path), client.post(f"{path}/rotate")]

    assert [answer.status_code for answer in asked] == [404, 404, 404]
    assert [key["name"] for key in client.get("/v1/keys").json()["data"]] == ["test"]
    stored = gateway.keys.get(foreign.id)
    assert stored is not None
    assert stored.revoked_at is None


@pytest.mark.parametrize(
    ("order", "where"),
    [
        ({}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "scopes": ["root"]}, "scopes.0"),
        ({"name": "a", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"name": "a", "budgets": [{"window": "day"}]}, "budgets.0"),
        ({"name": "a", "budgets": [{"window": "year", "money": 1}]}, "budgets.0.window"),
        ({"name": "a", "expires_at": 1}, "expires_at"),
        ({"name": "a", "tenant": "umbrella"}, "tenant"),
    ],
)
def test_what_is_no_key_is_said(client: httpx.Client, order: dict[str, Any], where: str) -> None:
    refused = client.post("/v1/keys", json=order)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, where)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/keys", Scope.ADMIN),
        ("GET", "/v1/keys", Scope.ADMIN),
        ("GET", "/v1/keys/key_1", Scope.ADMIN),
        ("DELETE", "/v1/keys/key_1", Scope.ADMIN),
        ("POST", "/v1/keys/key_1/rotate", Scope.ADMIN),
        ("POST", "/v1/erasures", Scope.ADMIN),
        ("GET", "/v1/erasures", Scope.ADMIN),
        ("GET", "/v1/models", Scope.INFERENCE),
        ("POST", "/v1/feedback", Scope.INFERENCE),
        ("POST", "/api/public/scores", Scope.INFERENCE),
        ("GET", "/v1/chat/completions", Scope.INFERENCE),
    ],
)
def test_a_path_opens_to_its_scope_alone(
    gateway: Gateway, client: httpx.Client, method: str, path: str, scope: Scope
) -> None:
    without = holder(gateway.keys, scopes=EVERYTHING - {scope})

    refused = client.request(method, path, headers=without)

    assert refused.status_code == 403
    assert f"Missing scopes: {scope}." in refused.json()["error"]["message"]


def test_an_expired_key_is_told_so(gateway: Gateway, client: httpx.Client) -> None:
    expired = holder(gateway.keys, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    refused = client.get("/v1/models", headers=expired)

    assert refused.status_code == 401
    assert "expired" in refused.json()["error"]["message"]


def test_anthropics_header_opens_too(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/v1/models", headers={"x-api-key": gateway.key})

    assert answer.status_code == 200


def test_feedback_sent_again_counts_once(gateway: Gateway, client: httpx.Client) -> None:
    body = {"metric_name": "good", "value": True, "episode_id": "e1"}
    headers = {"idempotency-key": "f1"}

    first = client.post("/v1/feedback", json=body, headers=headers)
    again = client.post("/v1/feedback", json=body | {"value": False}, headers=headers)
    own = client.post("/v1/feedback", json=body)

    assert first.json() == again.json() != own.json()
    kept = gateway.logged("SELECT id::VARCHAR AS id, score_value FROM feedback ORDER BY id")
    assert kept == [
        {"id": first.json()["feedback_id"], "score_value": 1.0},
        {"id": own.json()["feedback_id"], "score_value": 1.0},
    ]


def test_an_idempotency_key_has_an_end(client: httpx.Client) -> None:
    body = {"metric_name": "good", "value": True, "episode_id": "e1"}

    refused = client.post("/v1/feedback", json=body, headers={"idempotency-key": "x" * 256})

    assert refused.status_code == 400
    assert "255" in refused.json()["error"]["message"]


def test_health_needs_no_key(gateway: Gateway) -> None:
    live = httpx.get(f"{gateway.url}/health/live")
    ready = httpx.get(f"{gateway.url}/health/ready")

    assert (live.status_code, live.json()) == (200, {"live": True})
    assert ready.json()["state"]["following"] is True
    assert ready.json()["draining"] is False


async def test_what_a_limited_key_makes_counts_for_it(gateway: Gateway) -> None:
    maker = holder(gateway.keys, scopes=ADMIN, limits=Limits(requests_per_minute=3))
    made = [(await gateway.post("/v1/keys", {"name": f"{n}"}, **maker)).json() for n in range(2)]

    answers = [
        await gateway.post("/v1/chat/completions", gateway.body(), **bearer(made[n % 2]["key"]))
        for n in range(4)
    ]

    assert made[0]["within"] == made[1]["within"] is not None
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "Rate limit reached for `k`" in answers[-1].json()["error"]["message"]


def test_limited_keys_make_one_another_only_so_far(client: httpx.Client, gateway: Gateway) -> None:
    headers = holder(gateway.keys, scopes=ADMIN, limits=Limits(concurrency=9))
    statuses = []

    for _ in range(4):
        body = {"name": "next", "scopes": ["admin"]}
        made = client.post("/v1/keys", json=body, headers=headers)
        statuses.append(made.status_code)
        headers = bearer(made.json().get("key", ""))

    assert statuses == [200, 200, 200, 403]
    assert "Let one of its makers make it" in made.json()["error"]["message"]


async def test_what_a_key_has_used_of_its_budgets_is_told(gateway: Gateway) -> None:
    asked = {"name": "ci", "budgets": [{"window": "total", "tokens": 1000}]}
    made = (await gateway.post("/v1/keys", asked)).json()
    await gateway.post("/v1/chat/completions", gateway.body(), **bearer(made["key"]))

    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
        one = (await client.get(f"/v1/keys/{made['id']}")).json()
        listed = (await client.get("/v1/keys")).json()["data"]

    (record,) = gateway.spooled()
    tokens = record.input_tokens + record.output_tokens
    assert made["used"] == [{"window": "total", "tokens": 0, "money": 0.0, "until": None}]
    assert one["used"] == [{"window": "total", "tokens": tokens, "money": 0.0, "until": None}]
    assert listed[1] == one
