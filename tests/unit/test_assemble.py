import json
from typing import Any

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
