"""Every field that vLLM knows is judged, and what is refused is refused by name."""

import ast
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.settings import Capture
from gateway.surface import SURFACES, Surface
from gateway.surface.fields import MAX_GRAMMAR_BYTES

LEAST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/embeddings": {"model": "m", "input": "hi"},
    "/v1/messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    },
}
ENTRYPOINTS = "entrypoints/"
REQUESTS = {
    "/v1/chat/completions": [("openai/chat_completion", "ChatCompletionRequest")],
    "/v1/completions": [("openai/completion", "CompletionRequest")],
    "/v1/responses": [("openai/responses", "ResponsesRequest")],
    "/v1/messages": [("anthropic", "AnthropicMessagesRequest")],
    "/v1/embeddings": [
        ("pooling/base", name)
        for name in (
            "PoolingBasicRequestMixin",
            "CompletionRequestMixin",
            "ChatRequestOptionsMixin",
            "ChatRequestMixin",
            "EncodingRequestMixin",
            "EmbedRequestMixin",
        )
    ],
}
REFUSED = [(path, name) for path, surface in SURFACES.items() for name in surface.fields.refused]


def surface(path: str = "/v1/chat/completions") -> Surface:
    return SURFACES[path]


def body(path: str = "/v1/chat/completions", **fields: Any) -> bytes:
    return json.dumps(LEAST[path] | fields).encode()


def sent(path: str, **fields: Any) -> dict[str, Any]:
    parsed = surface(path).parse(body(path, **fields))
    payload, _ = surface(path).rewritten(parsed, model="base", capture=Capture())
    decoded: dict[str, Any] = json.loads(payload)
    return decoded


def of_vllm(path: str) -> Iterator[str]:
    """The names of the fields of vLLM's own request class, read without importing it."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    for folder, name in REQUESTS[path]:
        source = Path(spec.origin).parent / ENTRYPOINTS / folder / "protocol.py"
        tree = ast.parse(source.read_text())
        [found] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
        for line in found.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                yield line.target.id


@pytest.mark.parametrize("path", REQUESTS)
def test_every_field_of_vllm_is_judged(path: str) -> None:
    fields = surface(path).fields

    judged = fields.known | fields.refused.keys()

    assert {name for name in of_vllm(path) if not name.startswith("_")} - judged == set()


@pytest.mark.parametrize("path", SURFACES)
def test_no_field_is_judged_twice(path: str) -> None:
    fields = surface(path).fields

    assert not fields.passed.keys() & fields.taken.keys()
    assert not fields.known & fields.refused.keys()
    assert set(fields.required) <= fields.passed.keys()


@pytest.mark.parametrize(("path", "name"), REFUSED)
def test_what_is_refused_is_named_with_its_reason(path: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        surface(path).parse(body(path, **{name: "something"}))

    assert f"{name} (" in refused.value.message
    assert refused.value.param == name


@pytest.mark.parametrize(("path", "name"), REFUSED)
def test_what_asks_for_nothing_is_left_out(path: str, name: str) -> None:
    harmless = surface(path).fields.refused[name].harmless

    for value in (None, *harmless):
        assert name not in sent(path, **{name: value})


def test_a_harmless_value_is_one_of_its_own_type() -> None:
    with pytest.raises(InvalidRequest):
        surface().parse(body(priority=False))


def test_all_that_is_refused_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        surface().parse(body(prompt_logprobs=1, frobnicate=2, chat_template="x", zap=1))

    message = refused.value.message
    assert message.startswith("Unrecognized request arguments supplied: frobnicate, zap.")
    assert "prompt_logprobs (" in message
    assert "chat_template (" in message


@pytest.mark.parametrize("path", SURFACES)
def test_an_unknown_field_is_refused_in_openais_words(path: str) -> None:
    with pytest.raises(InvalidRequest, match="Unrecognized request argument supplied: zap"):
        surface(path).parse(body(path, zap=1))


@pytest.mark.parametrize("path", SURFACES)
def test_the_engine_is_not_told_what_only_the_gateway_means(path: str) -> None:
    taken = surface(path).fields.taken

    fields = sent(path, user="ann") if "user" in taken else sent(path, metadata={"user_id": "ann"})

    assert not fields.keys() & (taken.keys() - {"store"})
    assert fields["model"] == "base"


def test_what_passes_is_untouched() -> None:
    raw = b'{"model":"m","messages":[{"content":"\\u00e9"}],"temperature":1E0,"seed":1e0}'
    parsed = surface().parse(raw)

    payload, _ = surface().rewritten(parsed, model="m", capture=Capture())

    assert payload == raw


def test_no_engine_keeps_a_response() -> None:
    assert sent("/v1/responses", store=True)["store"] is False
    assert sent("/v1/responses")["store"] is False


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"n": 129}, "n"),
        ("/v1/chat/completions", {"n": 0}, "n"),
        ("/v1/chat/completions", {"top_logprobs": 21}, "top_logprobs"),
        ("/v1/chat/completions", {"top_logprobs": -1}, "top_logprobs"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"max_tokens": "9"}, "max_tokens"),
        ("/v1/chat/completions", {"stream_options": []}, "stream_options"),
        ("/v1/completions", {"logprobs": 21}, "logprobs"),
        ("/v1/completions", {"echo": True, "logprobs": 0}, "echo"),
        ("/v1/completions", {"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ("/v1/completions", {"prompt": [[1, 2]] * 129}, "prompt"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input"),
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"encoding_format": "bytes"}, "encoding_format"),
        ("/v1/responses", {"top_logprobs": 21}, "top_logprobs"),
        ("/v1/messages", {"messages": []}, "messages"),
        ("/v1/messages", {"metadata": {"user_id": 7}}, "metadata"),
        ("/v1/messages", {"max_tokens": None}, "max_tokens"),
    ],
)
def test_what_is_beyond_a_limit_is_refused(path: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        surface(path).parse(body(path, **fields))

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("prompt", "n", "choices"),
    [("hi", 3, 3), ([1, 2, 3], 2, 2), (["a", "b"], 2, 4), ([[1], [2]], 1, 2), (["a"] * 64, 2, 128)],
)
def test_choices_are_counted_over_all_prompts(prompt: Any, n: int, choices: int) -> None:
    parsed = surface("/v1/completions").parse(body("/v1/completions", prompt=prompt, n=n))

    assert parsed.n == choices


def test_tokens_of_one_text_may_be_many() -> None:
    parsed = surface("/v1/embeddings").parse(body("/v1/embeddings", input=[1] * 5000))

    assert not parsed.stream


def test_a_grammar_can_only_be_so_long() -> None:
    regex = {"regex": "a" * MAX_GRAMMAR_BYTES}

    with pytest.raises(InvalidRequest, match="structured_outputs is over"):
        surface().parse(body(structured_outputs=regex))


@pytest.mark.parametrize(
    "switches", [{"enable_thinking": False}, {"effort": "high", "budget": 3, "x": None}, None]
)
def test_switches_of_a_template_pass(switches: Any) -> None:
    assert sent("/v1/chat/completions", chat_template_kwargs=switches)["chat_template_kwargs"] == (
        switches
    )


@pytest.mark.parametrize(
    "switches",
    [{"x": {"y": 1}}, {"x": ["y"]}, {"x": "y" * 65}, {"chat_template": "y"}, {"max_length": 1}, []],
)
def test_anything_more_than_a_switch_is_refused(switches: Any) -> None:
    with pytest.raises(InvalidRequest, match="chat_template_kwargs"):
        surface().parse(body(chat_template_kwargs=switches))


@pytest.mark.parametrize(
    ("path", "fields", "user", "most"),
    [
        ("/v1/chat/completions", {"user": "a", "safety_identifier": "b"}, "b", None),
        ("/v1/chat/completions", {"user": "a", "max_tokens": 3}, "a", 3),
        ("/v1/chat/completions", {"max_tokens": 3, "max_completion_tokens": 2}, None, 2),
        ("/v1/completions", {"user": "a", "max_tokens": 3}, "a", 3),
        ("/v1/responses", {"user": "a", "max_output_tokens": 3}, "a", 3),
        ("/v1/embeddings", {"user": "a"}, "a", 0),
        ("/v1/messages", {"metadata": {"user_id": "a"}}, "a", 9),
    ],
)
def test_who_asks_and_for_how_much_is_read(
    path: str, fields: dict[str, Any], user: str | None, most: int | None
) -> None:
    parsed = surface(path).parse(body(path, **fields))

    assert (parsed.user, parsed.max_tokens) == (user, most)
