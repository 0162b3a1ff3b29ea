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


ITEM = {"id": "msg", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
STARTED = {"id": "resp", "object": "response", "model": "m", "status": "in_progress", "output": []}


def responded(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 0, **fields}


def piece(text: str, kind: str = "output_text", **place: int) -> dict[str, Any]:
    return responded(
        f"{kind}.delta", **({"output_index": 0, "content_index": 0} | place), delta=text
    )


def test_a_response_is_what_its_last_event_says() -> None:
    whole = STARTED | {"status": "completed", "output": [ITEM], "usage": {"input_tokens": 3}}

    body = completion(
        sse(
            responded("created", response=STARTED),
            piece("a"),
            responded("completed", response=whole),
        )
    )

    assert body == whole


def test_a_response_that_was_cut_is_put_together_from_its_pieces() -> None:
    done = {"id": "r", "type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    call = {"id": "f", "type": "function_call", "name": "refund", "arguments": ""}
    part = {"type": "output_text", "text": "", "annotations": []}

    body = completion(
        sse(
            responded("created", response=STARTED),
            responded("output_item.added", output_index=0, item={"id": "r", "type": "reasoning"}),
            piece("hm", "reasoning_text"),
            responded("output_item.done", output_index=0, item=done),
            responded("output_item.added", output_index=1, item=ITEM),
            responded("content_part.added", output_index=1, content_index=0, part=part),
            piece("one ", output_index=1),
            piece("two", output_index=1),
            piece("No.", "refusal", output_index=1, content_index=1),
            responded("output_item.added", output_index=2, item=call),
            responded("function_call_arguments.delta", output_index=2, delta='{"a"'),
            responded("function_call_arguments.delta", output_index=2, delta=":1"),
            done=False,
        )
    )

    assert body == STARTED | {
        "output": [
            done,
            ITEM | {"content": [part | {"text": "one two"}, {"refusal": "No."}]},
            call | {"arguments": '{"a":1'},
        ]
    }


def test_a_response_that_failed_says_so() -> None:
    failed = STARTED | {"status": "failed", "error": {"code": "server_error", "message": "oops"}}

    told = completion(sse(responded("created", response=STARTED), piece("a"), {"type": "error"}))
    whole = completion(sse(responded("failed", response=failed)))

    assert told is not None
    assert (told["error"], told["output"]) == ({"type": "error"}, [{"content": [{"text": "a"}]}])
    assert whole == failed


def said(*events: dict[str, Any]) -> str:
    """A stream of messages, as vLLM sends it."""
    start = {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "usage": {"input_tokens": 30, "output_tokens": 0, "cache_read_input_tokens": 10},
    }
    return sse({"type": "message_start", "message": start}, *events, done=False)


def block(index: int, **fields: Any) -> list[dict[str, Any]]:
    """A content block and its pieces."""
    pieces = fields.pop("pieces")
    return [
        {"type": "content_block_start", "index": index, "content_block": fields},
        *({"type": "content_block_delta", "index": index, "delta": one} for one in pieces),
        {"type": "content_block_stop", "index": index},
    ]


THOUGHT = block(
    0,
    type="thinking",
    thinking="",
    pieces=[
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "s"},
    ],
)
TOLD = block(1, type="text", text="", pieces=[{"type": "text_delta", "text": t} for t in "ab"])
CALLED = block(
    2,
    type="tool_use",
    id="t",
    name="refund",
    input={},
    pieces=[{"type": "input_json_delta", "partial_json": t} for t in ("", '{"a"', ": 1}")],
)


def test_a_message_is_put_together_with_its_last_usage() -> None:
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 30, "output_tokens": 9, "cache_read_input_tokens": 10},
    }

    body = completion(said(*THOUGHT, *TOLD, *CALLED, end, {"type": "message_stop"}))

    assert json.loads(msgspec.json.encode(body)) == {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 30, "output_tokens": 9, "cache_read_input_tokens": 10},
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "t", "name": "refund", "input": {"a": 1}},
        ],
    }


def test_a_message_that_was_cut_keeps_what_came_and_claims_no_tokens_written() -> None:
    body = completion(said(*TOLD, *CALLED[:3]))

    assert body is not None
    assert body["usage"] == {"input_tokens": 30, "cache_read_input_tokens": 10}
    assert [one.get("text", one.get("input")) for one in body["content"]] == ["ab", '{"a"']
    assert body["stop_reason"] is None


def test_a_message_that_failed_says_so() -> None:
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    late, at_once = completion(said(*TOLD, failed, *CALLED)), completion(sse(failed))

    assert late is not None
    assert (late["type"], late["error"], len(late["content"])) == ("message", failed["error"], 1)
    assert at_once == {**failed, "content": []}


_names = st.sampled_from(
    [
        *("choices", "delta", "index", "tool_calls", "function", "content", "usage", "error", "id"),
        *("type", "item", "part", "output_index", "response", "message", "content_block"),
    ]
)
_kinds = st.sampled_from(
    [
        *("response.created", "response.output_text.delta", "response.output_item.done"),
        *("response.content_part.added", "response.completed", "message_start", "message_delta"),
        *("content_block_start", "content_block_delta", "error"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(_names, _json, max_size=4), max_size=4),
    st.lists(st.none() | _kinds, min_size=4, max_size=4),
)
def test_no_stream_is_too_odd_to_be_put_together(
    events: list[dict[str, Any]], kinds: list[str | None]
) -> None:
    typed = zip(events, kinds, strict=False)
    body = completion(sse(*(event | ({"type": kind} if kind else {}) for event, kind in typed)))

    assert body is None or isinstance(body.get("choices", []), list)
    msgspec.json.encode(body)
