"""Errors look as the clients of each surface expect."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from gateway.api.envelope import install
from gateway.errors import (
    BudgetSpent,
    Conflict,
    Forbidden,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    TooLarge,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from gateway.surface import SURFACES, headers_of

CHAT = SURFACES["/v1/chat/completions"]
MESSAGES = SURFACES["/v1/messages"]


def test_openais_envelope_names_the_field_and_the_code() -> None:
    said = json.loads(CHAT.error(ModelNotFound("There is no such model.", param="model")))

    assert said == {
        "error": {
            "message": "There is no such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (ModelNotFound("x"), "not_found_error"),
        (TooSlow("x"), "invalid_request_error"),
        (TooLarge("x"), "request_too_large"),
        (RateLimited("x"), "rate_limit_error"),
        (BudgetSpent("x"), "rate_limit_error"),
        (Overloaded("x"), "overloaded_error"),
        (Unavailable("x"), "api_error"),
        (TimedOut("x"), "api_error"),
    ],
)
def test_anthropics_envelope_has_anthropics_types(error: GatewayError, kind: str) -> None:
    said = json.loads(MESSAGES.error(error))

    assert said == {"type": "error", "error": {"type": kind, "message": "x"}}


def test_anthropics_envelope_says_which_field() -> None:
    said = json.loads(MESSAGES.error(InvalidRequest("must be positive", param="max_tokens")))

    assert said["error"]["message"] == "max_tokens: must be positive"


@pytest.mark.parametrize(
    ("payload", "message", "param"),
    [
        (
            {
                "error": {
                    "message": "1 validation error: {'loc': 'body.temperature', "
                    "'msg': 'Input should be a valid number'}",
                    "param": "body.temperature",
                }
            },
            "temperature: Input should be a valid number.",
            "temperature",
        ),
        ({"error": {"message": "too long", "code": 400}}, "too long", None),
        ({"type": "error", "error": {"type": "BadRequestError", "message": "no"}}, "no", None),
        ({"detail": "odd"}, '{"detail": "odd"}', None),
        ([], "[]", None),
        ({"error": "odd"}, '{"error": "odd"}', None),
    ],
)
def test_an_engines_refusal_is_told_in_our_terms(
    payload: Any, message: str, param: str | None
) -> None:
    said = json.loads(CHAT.refusal(json.dumps(payload).encode()))["error"]

    assert (said["message"], said["param"]) == (message, param)
    assert said["type"] == "invalid_request_error"


def test_a_refusal_that_is_no_text_is_still_told() -> None:
    assert json.loads(MESSAGES.refusal(b'{"\xff'))["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (InvalidRequest("x"), {}),
        (Unauthorized("x"), {"www-authenticate": "Bearer"}),
        (RateLimited("x", retry_after_s=2.1), {"retry-after": "3", "retry-after-ms": "2100"}),
        (RateLimited("x", retry_after_s=0.0), {"retry-after": "1", "retry-after-ms": "1"}),
        (Unavailable("x"), {"retry-after": "2"}),
        (Overloaded("x", retry_after_s=1.0), {"retry-after": "1", "retry-after-ms": "1000"}),
        (
            BudgetSpent("x", retry_after_s=60),
            {"retry-after": "60", "retry-after-ms": "60000", "x-should-retry": "false"},
        ),
        (Conflict("x"), {"x-should-retry": "false"}),
    ],
)
def test_headers_say_when_and_whether_to_come_back(
    error: GatewayError, headers: dict[str, str]
) -> None:
    assert headers_of(error) == headers


def test_an_endpoint_that_an_engine_lacks_is_named() -> None:
    said = json.loads(SURFACES["/v1/embeddings"].refusal(b'{"detail":"Not Found"}'))

    assert "does not answer /v1/embeddings" in said["error"]["message"]
    assert said["error"]["param"] == "model"


def test_a_fault_of_ours_tells_clients_nothing_but_that() -> None:
    app = FastAPI()
    install(app)

    @app.get("/")
    def fails() -> None:
        raise RuntimeError("/a/secret/path")

    answer = TestClient(app, raise_server_exceptions=False).get("/")

    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text


def test_a_field_that_is_none_of_ours_is_named_with_where_to_look() -> None:
    class Asked(BaseModel, extra="forbid"):
        name: str = ""

    app = FastAPI()
    install(app)

    @app.post("/")
    def takes(_: Asked) -> None:
        raise AssertionError("it is never called")

    answer = TestClient(app).post("/", json={"rpm": 60})

    told = answer.json()["error"]
    assert (answer.status_code, told["param"]) == (400, "rpm")
    assert told["message"].startswith("rpm: there is no such field; /openapi.json")
