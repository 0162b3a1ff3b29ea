import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.log.assemble import completion


def sse(*events: dict[str, Any], done: bool = True) -> str:
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return text + ("data: [DONE]\n\n" if done else "")


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]}


def test_texts_are_joined_and_the_finish_reason_is_kept() -> None:
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

    body = completion(sse(chunk(role="assistant", content=""), chunk(content="a"), last))

    assert body is not None
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "a"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert (body["id"], body["model"], body["object"]) == ("c", "m", "chat.completion")


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    first = {"index": 0, "id": "t1", "function": {"name": "refund", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": part}} for part in ('{"a"', ":1}")]

    body = completion(
        sse(chunk(tool_calls=[first]), *(chunk(tool_calls=[piece]) for piece in pieces))
    )

    assert body is not None
    call = body["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "refund", "arguments": '{"a":1}'}
    assert call["id"] == "t1"


def test_reasoning_logprobs_and_token_ids_are_kept() -> None:
    part = chunk(reasoning="th") | {}
    part["choices"][0] |= {"logprobs": {"content": [{"token": "a"}]}, "token_ids": [1]}
    more = chunk(reasoning="ink")
    more["choices"][0] |= {"logprobs": {"content": [{"token": "b"}]}, "token_ids": [2]}

    body = completion(sse(part, more))

    assert body is not None
    choice = body["choices"][0]
    assert choice["message"]["reasoning"] == "think"
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["a", "b"]
    assert choice["token_ids"] == [1, 2]


def test_choices_are_kept_apart_and_usage_is_taken() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 1}}

    body = completion(sse(chunk(content="a"), other, usage))

    assert body is not None
    assert [choice["message"]["content"] for choice in body["choices"]] == ["a", "b"]
    assert body["usage"] == {"prompt_tokens": 1}


def test_a_cut_stream_gives_what_was_received() -> None:
    body = completion(sse(chunk(content="a"), done=False) + 'data: {"choi')

    assert body is not None
    assert body["choices"][0]["message"]["content"] == "a"
    assert completion("") is None


def test_a_line_separator_of_unicode_is_text_like_any_other() -> None:
    text = "one\u2028two\u0085three"
    event = json.dumps(chunk(content=text), ensure_ascii=False)

    body = completion(f"data: {event}\r\n\r\ndata:[DONE]\r\n\r\n")

    assert body is not None
    assert body["choices"][0]["message"]["content"] == text


def test_what_one_engine_alone_sends_is_kept() -> None:
    first = chunk(role="assistant", content="") | {"prompt_token_ids": [1, 2], "created": 7}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 9}]}

    body = completion(sse(first, last | {"system_fingerprint": "fp", "prompt_token_ids": None}))

    assert body is not None
    assert (body["prompt_token_ids"], body["created"], body["system_fingerprint"]) == (
        [1, 2],
        7,
        "fp",
    )
    assert body["choices"][0]["stop_reason"] == 9


def test_several_calls_and_a_function_call_are_put_together() -> None:
    calls = [
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}},
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    old = [{"name": "h", "arguments": ""}, {"arguments": "{}"}]

    body = completion(
        sse(
            *(chunk(tool_calls=[call]) for call in calls),
            *(chunk(function_call=call) for call in old),
        )
    )

    assert body is not None
    message = body["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert message["function_call"] == {"name": "h", "arguments": "{}"}


def test_a_refusal_and_reasoning_are_joined_like_content() -> None:
    parts = [chunk(refusal="No"), chunk(refusal=", no."), chunk(reasoning_content="hm")]

    body = completion(sse(*parts))

    assert body is not None
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "refusal": "No, no.",
        "reasoning_content": "hm",
    }


def test_an_error_ends_the_answer_and_what_came_before_it_stays() -> None:
    failed = {"error": {"message": "out of memory", "code": 500}}

    body = completion(sse(chunk(content="a"), failed, chunk(content="b")))

    assert body is not None
    assert body["error"] == failed["error"]
    assert body["choices"][0]["message"]["content"] == "a"


def test_a_stream_of_texts_is_put_together_as_it_is() -> None:
    parts = [{"object": "text_completion", "choices": [{"index": 0, "text": t}]} for t in "ab"]

    assert completion(sse(*parts)) == {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "ab"}],
    }


def test_events_of_odd_shapes_are_passed_over() -> None:
    odd = [
        {"choices": "none"},
        {"choices": [1, {"index": "x", "delta": 3}, {"delta": {"tool_calls": [1, {"a": 1}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 10**12, "id": "far"}]}}]},
    ]

    body = completion(sse(*odd, chunk(content="a")) + "data: 7\n\ndata: {]\n\n")

    assert body is not None
    assert body["choices"][0]["message"]["content"] == "a"


def test_wherever_a_stream_is_cut_the_beginning_is_kept() -> None:
    stream = sse(*(chunk(content=f"w{n} ") for n in range(5)))

    for cut in range(len(stream)):
        body = completion(stream[:cut])
        text = body["choices"][0]["message"]["content"] if body else ""
        assert "w0 w1 w2 w3 w4 ".startswith(text)
        assert text.count(" ") == stream[:cut].count("}]}")


_names = st.sampled_from(
    ["choices", "delta", "index", "tool_calls", "function", "content", "usage", "error", "id"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(_names, _json, max_size=4), max_size=4))
def test_no_stream_is_too_odd_to_be_put_together(events: list[dict[str, Any]]) -> None:
    body = completion(sse(*events))

    assert body is None or isinstance(body["choices"], list)
    msgspec.json.encode(body)
