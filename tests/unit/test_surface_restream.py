"""A whole answer, told as events, is put together to the same answer again."""

import json
from typing import Any

import msgspec
import pytest

from gateway.log.assemble import completion
from gateway.surface import NOTHING, SURFACES

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USAGE = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
SPENT = {"input_tokens": 3, "output_tokens": 2}


def told(path: str, answer: dict[str, Any]) -> str:
    return SURFACES[path].stream(json.dumps(answer).encode()).decode()


@pytest.mark.parametrize(
    "message",
    [{"role": "assistant", "content": "hi"}, {"role": "assistant", "tool_calls": [CALL, CALL]}],
)
def test_a_chat_completion_is_the_same_again(message: dict[str, Any]) -> None:
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in (0, 1)]
    answer: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    answer |= {"choices": choices, "usage": USAGE}

    assert completion(told("/v1/chat/completions", answer)) == answer


def test_a_response_is_the_same_again() -> None:
    text = {"type": "output_text", "text": "hi", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    answer: dict[str, Any] = {"id": "r", "object": "response", "status": "completed", "model": "m"}
    answer |= {"output": [item], "usage": SPENT | {"total_tokens": 5}}

    sse = told("/v1/responses", answer)

    assert completion(sse) == answer
    numbers = [json.loads(line[6:])["sequence_number"] for line in sse.split("\n") if "{" in line]
    assert numbers == list(range(len(numbers)))


def test_a_message_is_the_same_again() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "so", "signature": "s"},
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
    ]
    answer: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": blocks,
    }
    answer |= {"stop_reason": "tool_use", "stop_sequence": None, "usage": SPENT}

    again = completion(told("/v1/messages", answer))

    assert msgspec.json.decode(msgspec.json.encode(again)) == answer


@pytest.mark.parametrize("path", [path for path in SURFACES if path != "/v1/embeddings"])
def test_what_is_told_so_has_its_usage_and_an_end(path: str) -> None:
    surface = SURFACES[path]
    usage = SPENT if path in {"/v1/messages", "/v1/responses"} else USAGE
    events = surface.events(NOTHING)

    events.feed(surface.stream(json.dumps({"id": "c", "usage": usage}).encode()))

    assert events.ended
    assert events.usage is not None
    assert (events.usage.prompt_tokens, events.usage.completion_tokens) == (3, 2)
