"""A body is taken when the log can read all of it, within OpenAI's limits, and fetches nothing."""

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.surface import SURFACES, Parsed

CHAT = SURFACES["/v1/chat/completions"]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{}]} | fields).encode()


def saying(*parts: Any) -> bytes:
    return body(messages=[{"role": "user", "content": list(parts)}])


def parse(body: bytes, path: str = "/v1/chat/completions") -> Parsed:
    return SURFACES[path].parse(body)


def test_the_deciding_fields_are_read() -> None:
    request = parse(body(user="ann", store=False, metadata={"task": "t"}, n=2, stream=True))

    assert (request.user, request.store, request.metadata) == ("ann", False, {"task": "t"})
    assert (request.n, request.stream, request.model) == (2, True, "m")


def test_metadata_within_openais_limits_is_taken() -> None:
    most = {f"{n:064}": "é" * 512 for n in range(16)}

    assert parse(body(metadata=most)).metadata == most


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"store": "yes"}, "store"),
        ({"user": 7}, "user"),
        ({"model": None}, "model"),
        ({"messages": "hi"}, "messages"),
    ],
)
def test_what_is_beyond_them_is_refused_by_its_name(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**fields))

    assert refused.value.param == param


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "1" * 400 + ".5"])
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        parse(body(temperature=0.5).replace(b"0.5", number.encode()))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'"model"',
        b'{"model":"m"',
        b'{"model":"m","messages":[{"content":"\xff"}]}',
        b'{"model":"m","messages":[{"content":"\\ud800"}]}',
        b'{"model":"m\xff","messages":[{}]}',
        b'{"model":"m","messages":[{}],"\xff":1}',
        b'{"model":"m","messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"m","messages":[' + b'{"content":[' * 480 + b"]}" * 480 + b"]}",
    ],
)
def test_what_is_no_json_that_a_log_could_read_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_of_a_field_sent_twice_one_is_judged_and_the_same_passes() -> None:
    request = parse(b'{"model":"m","messages":[{}],"n":500,"n":2}')

    assert request.n == 2
    assert bytes(request.fields["n"]) == b"2"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
        {"type": "image_url", "image_url": {"url": "HTTPS://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": " data:image/png,x"}},
        {"image_url": "http://localhost"},
        {"type": "text", "image_url": "http://localhost"},
        {"type": "audio_url", "audio_url": {"url": "http://localhost"}},
        {"type": "video_url", "video_url": {"url": "http://localhost"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"image_embeds": "AAAA"},
        {"type": "prompt_embeds", "data": "AAAA"},
        {"type": "audio_embeds", "audio_embeds": PIXEL},
    ],
)
def test_what_an_engine_would_fetch_or_unpack_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(saying({"type": "text", "text": "see"}, part))

    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": 'see {"image_url": "http://localhost"}'},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "image_url", "image_url": {"url": PIXEL.replace("data", "DATA")}},
        {"image_url": PIXEL},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": ["odd"]},
        "text",
    ],
)
def test_what_comes_with_the_request_is_taken(part: Any) -> None:
    assert parse(saying(part)).model == "m"


def test_escapes_hide_no_link() -> None:
    hidden = (
        b'{"model":"m","messages":[{"content":[{"image\\u005furl":"\\u0068ttp://localhost"}]}]}'
    )

    with pytest.raises(InvalidRequest, match="not fetched"):
        parse(hidden)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "url", "url": "http://localhost"}},
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "image", "source": {"type": "url", "url": "http://localhost"}}],
        },
    ],
)
def test_links_of_anthropics_messages_are_refused(block: dict[str, Any]) -> None:
    request = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}

    with pytest.raises(InvalidRequest, match="not fetched"):
        parse(json.dumps(request).encode(), "/v1/messages")


def test_what_a_model_once_put_into_a_tool_call_is_not_a_link() -> None:
    call = {"type": "tool_use", "id": "t", "name": "get", "input": {"image_url": "http://x"}}
    request = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [call]}]}

    assert parse(json.dumps(request).encode(), "/v1/messages").max_tokens == 1


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "image_url": "http://localhost"}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "http://localhost"}]},
        {
            "type": "function_call_output",
            "output": [{"type": "input_image", "image_url": "http://localhost"}],
        },
    ],
)
def test_links_of_responses_are_refused(item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="not fetched"):
        parse(json.dumps({"model": "m", "input": [item]}).encode(), "/v1/responses")


@pytest.mark.parametrize("name", ["input", "messages"])
def test_links_of_embedded_conversations_are_refused(name: str) -> None:
    link = {"role": "user", "content": [{"image_url": "http://localhost"}]}

    for conversation in ([link], [[link]]):
        with pytest.raises(InvalidRequest, match="not fetched"):
            parse(json.dumps({"model": "m", name: conversation}).encode(), "/v1/embeddings")
