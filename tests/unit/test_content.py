"""What was said, in the words of the GenAI conventions."""

from typing import Any

from gateway.telemetry.content import inputs, instructions, outputs


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def test_a_chat_with_a_tool_call_is_told_by_its_parts() -> None:
    function = {"name": "weather", "arguments": '{"city":"Paris"}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rainy"},
    ]

    told = inputs({"messages": messages})

    call = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'}
    assert told == [
        {"role": "system", "parts": [text("Be brief.")]},
        {"role": "user", "parts": [text("Weather?")]},
        {"role": "assistant", "parts": [call]},
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "rainy"}],
        },
    ]


def test_every_choice_is_a_message_with_its_reasoning_before_its_text() -> None:
    message = {"role": "assistant", "reasoning_content": "hm", "content": "Hi"}
    choices = [{"message": message, "finish_reason": "stop"}, {"text": "Ho", "finish_reason": None}]

    told = outputs({"choices": choices})

    parts = [{"type": "reasoning", "content": "hm"}, text("Hi")]
    assert told == [
        {"role": "assistant", "parts": parts, "finish_reason": "stop"},
        {"role": "assistant", "parts": [text("Ho")], "finish_reason": ""},
    ]


def test_anthropics_blocks_are_told_like_openais() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
    ]
    request = {
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]},
        ],
    }

    told = outputs({"type": "message", "role": "assistant", "content": blocks})

    assert told[0]["parts"] == [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "t1", "name": "weather", "arguments": {"city": "Paris"}},
    ]
    assert instructions(request) == [text("Be brief.")]
    assert inputs(request)[0]["parts"][0]["type"] == "tool_call_response"


def test_a_response_is_told_by_its_items() -> None:
    output = [
        {"type": "function_call", "call_id": "f1", "name": "weather", "arguments": "{}"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi"}],
        },
    ]

    told = outputs({"output": output})

    assert told == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "f1", "name": "weather", "arguments": "{}"}],
        },
        {"role": "assistant", "parts": [text("Hi")]},
    ]
    assert inputs({"input": "Hi"}) == [{"role": "user", "parts": [text("Hi")]}]
    assert instructions({"instructions": "Be brief."}) == [text("Be brief.")]


def test_prompts_come_as_texts_or_tokens() -> None:
    assert inputs({"prompt": "Hi"}) == [{"role": "user", "parts": [text("Hi")]}]
    assert inputs({"prompt": ["a", "b"]})[0]["parts"] == [text("a"), text("b")]
    assert inputs({"prompt": [1, 2]})[0]["parts"][0] == {"type": "tokens", "content": 1}


def test_what_is_not_known_stays_as_it_is() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    told = inputs({"messages": [{"role": "user", "content": [image, {"odd": 1}]}]})

    assert told[0]["parts"] == [image, {"odd": 1, "type": "unknown"}]
