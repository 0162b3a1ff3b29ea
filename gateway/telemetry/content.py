"""What was said, in the words of the GenAI conventions: messages made of parts.

Reads the bodies of all surfaces. What it does not know stays as it is: a part of any type is
allowed to have any fields.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Part = dict[str, Any]
_INSTRUCTIONS = ("system", "instructions")
"""The fields of a request, outside of its messages, that tell the model who it is."""


def instructions(request: dict[str, Any]) -> list[Part]:
    """The system's words where they stand apart from the messages."""
    return [part for field in _INSTRUCTIONS for part in _parts(request.get(field))]


def inputs(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request: ``messages``, or what stands for them as ``input``, ``prompt``."""
    for field in ("messages", "input", "prompt"):
        said = request.get(field)
        if isinstance(said, list) and all(isinstance(one, dict) for one in said):
            return [_message(one, "user") for one in said]
        if said is not None:
            return [{"role": "user", "parts": list(_parts(said))}]
    return []


def outputs(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of an answer, one for each choice."""
    if isinstance(choices := answer.get("choices"), list):
        return [_choice(choice) for choice in choices if isinstance(choice, dict)]
    if isinstance(output := answer.get("output"), list):
        return [_message(item, "assistant") for item in output if isinstance(item, dict)]
    return [_message(answer, "assistant")] if "content" in answer else []


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}
    return _message(message, "assistant") | {"finish_reason": choice.get("finish_reason") or ""}


def _message(message: dict[str, Any], role: str) -> dict[str, Any]:
    if "content" not in message and "role" not in message:  # an item that is a part by itself
        return {"role": role, "parts": [_part(message)]}
    role = message.get("role") or role
    if role == "tool":
        result = message.get("content")
        return {"role": role, "parts": [_result(message.get("tool_call_id"), result)]}
    parts = [*_parts(message.get("content"))]
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        parts.insert(0, {"type": "reasoning", "content": reasoning})
    calls = message.get("tool_calls")
    parts += [_part(call) for call in calls or () if isinstance(call, dict)]
    return {"role": role, "parts": parts}


def _parts(content: Any) -> Iterator[Part]:
    if isinstance(content, str):
        yield {"type": "text", "content": content}
    elif isinstance(content, list):
        for one in content:
            if isinstance(one, dict):
                yield _part(one)
            elif isinstance(one, str):
                yield {"type": "text", "content": one}
            else:  # token ids
                yield {"type": "tokens", "content": one}


def _part(part: Part) -> Part:
    kind = part.get("type")
    if not isinstance(kind, str):
        return {**part, "type": "unknown"}
    known = _KINDS.get(kind)
    return known(part) if known else part


def _text(part: Part) -> Part:
    return {"type": "text", "content": part.get("text") or part.get("refusal") or ""}


def _function(part: Part) -> Part:
    function = part.get("function")
    if not isinstance(function, dict):
        return part
    return _call(part.get("id"), function.get("name"), function.get("arguments"))


def _call(call_id: Any, name: Any, arguments: Any) -> Part:
    return {"type": "tool_call", "id": call_id, "name": name or "", "arguments": arguments}


def _result(call_id: Any, response: Any) -> Part:
    return {"type": "tool_call_response", "id": call_id, "response": response}


_KINDS: Mapping[str, Callable[[Part], Part]] = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), _text),
    "function": _function,
    "function_call": lambda part: _call(
        part.get("call_id"), part.get("name"), part.get("arguments")
    ),
    "tool_use": lambda part: _call(part.get("id"), part.get("name"), part.get("input")),
    "function_call_output": lambda part: _result(part.get("call_id"), part.get("output")),
    "tool_result": lambda part: _result(part.get("tool_use_id"), part.get("content")),
    "thinking": lambda part: {"type": "reasoning", "content": part.get("thinking") or ""},
}
