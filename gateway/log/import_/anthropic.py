"""Anthropic's Messages bodies, as InvokeModel takes and gives them, as Chat Completions."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.errors import BadRow
from gateway.log.import_.chat import completion, content_of, data_url, joined, put, tool_call
from gateway.log.import_.converse import stop
from gateway.log.import_.intake import mapping
from gateway.log.message import message as put_together

_STOPS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_SETTINGS: Final = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
}
_UNSAID: Final = frozenset({"thinking", "redacted_thinking"})
"""What a model thought in an earlier turn: no part of the prompt."""


def request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The Chat Completions request, without a model."""
    messages: list[dict[str, Any]] = []
    if body.get("system"):
        parts = [_part(block) for block in _blocks(body["system"])]
        messages.append({"role": "system", "content": content_of(parts)})
    for message in body.get("messages") or ():
        messages.extend(_messages(message))
    told: dict[str, Any] = {"messages": messages}
    put(told, "tools", [_tool(tool) for tool in body.get("tools") or ()])
    choice = body.get("tool_choice") or {}
    put(told, "tool_choice", _tool_choice(choice))
    if choice.get("disable_parallel_tool_use"):
        told["parallel_tool_calls"] = False
    for theirs, ours in _SETTINGS.items():
        put(told, ours, body.get(theirs))
    return told


def response(body: Mapping[str, Any]) -> dict[str, Any]:
    """The Chat Completions answer. Raises BadRow when it holds none."""
    if not isinstance(body.get("content"), list):
        raise BadRow("the answer holds no content")
    said: dict[str, Any] = {"role": "assistant", "content": None}
    blocks = body["content"]
    put(said, "content", joined(block.get("text") for block in blocks if block["type"] == "text"))
    put(said, "reasoning_content", joined(block.get("thinking") for block in blocks))
    put(said, "tool_calls", [_call(block) for block in blocks if block["type"] == "tool_use"])
    usage = body.get("usage") or {}
    # Anthropic counts what the cache gave and took apart from the other input.
    counts = [
        usage.get(name)
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    ]
    told = completion(
        said,
        stop(body.get("stop_reason"), _STOPS),
        prompt=None if counts[0] is None else sum(count or 0 for count in counts),
        answer=usage.get("output_tokens"),
        cached=usage.get("cache_read_input_tokens"),
    )
    put(told, "id", body.get("id"))
    return told


def folded(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The message that the events of a stream tell. Raises BadRow when one is an error."""
    body = put_together(chunks)
    if error := body.get("error"):
        raise BadRow(f"the stream broke off: {mapping(error).get('message')}")
    return body


def _messages(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    blocks = [one for one in _blocks(message.get("content")) if one.get("type") not in _UNSAID]
    for block in blocks:
        if block["type"] == "tool_result":
            content = content_of([_part(one) for one in _blocks(block.get("content"))])
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content or ""}
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    parts = [_part(block) for block in blocks if block["type"] not in ("tool_use", "tool_result")]
    if parts or calls:
        said: dict[str, Any] = {"role": message["role"], "content": content_of(parts)}
        put(said, "tool_calls", calls)
        yield said


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    if block.get("type") == "text":
        return {"type": "text", "text": block["text"]}
    source = block.get("source") or {}
    if block.get("type") == "image" and isinstance(source.get("data"), str):
        return data_url(source.get("media_type", "image/png"), source["data"])
    raise BadRow(f"Chat Completions have no form for content of kind {block.get('type')!r}")


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    return tool_call(block.get("id"), block["name"], block.get("input"))


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool["name"]}
    put(function, "description", tool.get("description"))
    put(function, "parameters", tool.get("input_schema"))
    put(function, "strict", tool.get("strict"))
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    return {"auto": "auto", "any": "required", "none": "none"}.get(str(kind))
