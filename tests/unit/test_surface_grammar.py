"""No caller's grammar stops an engine. Each case did that to vLLM 0.32, or had it answer 500."""

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.surface import SURFACES

ENDLESS: dict[str, Any] = {"type": "array", "minItems": 10**9}
MESSAGES = [{"role": "user", "content": "hello"}]
FORMAT = {"type": "json_schema", "name": "x", "schema": ENDLESS}
FUNCTION = {"name": "x", "parameters": ENDLESS, "strict": True}
CASES = {
    "a schema": ("chat/completions", "structured_outputs", {"json": ENDLESS}),
    "in a string": ("chat/completions", "structured_outputs", {"json": json.dumps(ENDLESS)}),
    "in a tag": ("chat/completions", "structured_outputs", {"structural_tag": json.dumps(FORMAT)}),
    "a format": (
        "chat/completions",
        "response_format",
        {"type": "json_schema", "json_schema": FORMAT},
    ),
    "a tool": ("chat/completions", "tools", [{"type": "function", "function": FUNCTION}]),
    "of completions": ("completions", "structured_outputs", {"json": ENDLESS}),
    "of responses": ("responses", "text", {"format": FORMAT}),
    "of messages": ("messages", "output_config", {"format": FORMAT}),
    "a float": ("completions", "structured_outputs", {"json": ENDLESS | {"minItems": 1e9}}),
    "beyond 64 bits": ("completions", "structured_outputs", {"json": {"maximum": 10**40}}),
    "a pattern": ("completions", "repetition_detection", {"max_pattern_size": 10**30}),
    "an interval": ("chat/completions", "stream_interval", 10**30),
    "top_k": ("messages", "top_k", 10**30),
}


def body(path: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        **(
            {"prompt": "hello"}
            if path == "completions"
            else {"input": "hello"}
            if path == "responses"
            else {"messages": MESSAGES, "max_tokens": 5}
        ),
        **more,
    }


@pytest.mark.parametrize(("path", "name", "value"), CASES.values(), ids=CASES)
def test_what_an_engine_does_not_survive_is_refused_by_name(
    path: str, name: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SURFACES[f"/v1/{path}"].parse(json.dumps(body(path, **{name: value})).encode())

    assert refused.value.param == name


def test_digits_behind_escapes_are_digits() -> None:
    escaped = json.dumps(body("completions", structured_outputs={"json": "SCHEMA"})).replace(
        "SCHEMA", r"{\"minItems\":\u0031" + r"\u0030" * 9 + "}"
    )

    with pytest.raises(InvalidRequest, match="minItems"):
        SURFACES["/v1/completions"].parse(escaped.encode())


def test_usual_schemas_pass() -> None:
    schema = {
        "type": "object",
        "properties": {
            "minItems": {"type": "integer", "maximum": 2**40},
            "id": {"enum": [123456789012]},
            "text": {"type": "string", "maxLength": 100_000},
        },
    }

    parsed = SURFACES["/v1/completions"].parse(
        json.dumps(body("completions", structured_outputs={"json": schema}, top_k=5)).encode()
    )

    assert json.loads(bytes(parsed.fields["structured_outputs"])) == {"json": schema}
