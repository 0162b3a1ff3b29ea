"""Bedrock's Converse bodies, which are Amazon Nova's too, as Chat Completions."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.errors import BadRow
from gateway.log.import_.chat import completion, content_of, data_url, joined, put, tool_call
from gateway.log.import_.intake import text

_STOPS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_SETTINGS: Final = {
    "maxTokens": "max_tokens",
    "max_new_tokens": "max_tokens",  # Nova's older spelling
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "stopSequences": "stop",
}
_UNSAID: Final = frozenset({"cachePoint", "reasoningContent"})
"""Blocks of a prompt that the model was not told, or is not told again."""


def request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The Chat Completions request, without a model."""
    messages: list[dict[str, Any]] = []
    if system := [_part(block) for block in body.get("system") or () if "cachePoint" not in block]:
        messages.append({"role": "system", "content": content_of(system)})
    for message in body.get("messages") or ():
        messages.extend(_messages(message))
    told: dict[str, Any] = {"messages": messages}
    config = body.get("toolConfig") or {}
    put(told, "tools", [_tool(tool) for tool in config.get("tools") or () if "toolSpec" in tool])
    put(told, "tool_choice", _tool_choice(config.get("toolChoice")))
    for key, value in (body.get("inferenceConfig") or {}).items():
        put(told, _SETTINGS.get(key, key), value)
    return told


def response(body: Mapping[str, Any]) -> dict[str, Any]:
    """The Chat Completions answer, without an id. Raises BadRow for a malformed one."""
    message = (body.get("output") or {}).get("message")
    if not isinstance(message, Mapping):
        raise BadRow("the answer holds no output.message")
    said: dict[str, Any] = {"role": "assistant", "content": None}
    blocks = message.get("content") or ()
    put(said, "content", joined(block.get("text") for block in blocks))
    put(said, "reasoning_content", joined(_reasoning(block) for block in blocks))
    put(said, "tool_calls", [_call(block["toolUse"]) for block in blocks if "toolUse" in block])
    usage = body.get("usage") or {}
    return completion(
        said,
        stop(body.get("stopReason"), _STOPS),
        # Bedrock counts what the cache gave and took apart from the other input.
        prompt=_sum(usage, "inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        answer=usage.get("outputTokens"),
        cached=usage.get("cacheReadInputTokens"),
    )


def folded(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The body that a stream of ConverseStream's events tells."""
    body: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for kind, event in chunk.items():
            if kind == "contentBlockStart":
                start = event.get("start") or {}
                if "toolUse" in start:
                    blocks[event["contentBlockIndex"]] = {"toolUse": {**start["toolUse"]}}
            elif kind == "contentBlockDelta":
                _grow(blocks.setdefault(event["contentBlockIndex"], {}), event.get("delta") or {})
            elif kind == "messageStop":
                body["stopReason"] = event.get("stopReason")
            elif kind == "metadata":
                body |= {key: event[key] for key in ("usage", "metrics") if key in event}
    content = [blocks[index] for index in sorted(blocks)]
    return body | {"output": {"message": {"role": "assistant", "content": content}}}


def stop(reason: Any, known: Mapping[str, str]) -> str | None:
    """OpenAI's word for a reason to stop; None for a stream that was cut before it said one."""
    if reason is None:
        return None
    if str(reason).startswith("malformed"):
        raise BadRow(f"the model's answer is broken: {reason}")
    if reason not in known:
        raise BadRow(f"the answer stopped for {reason!r}, which is no reason we know")
    return known[reason]


def _messages(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One message of theirs: what tools answered comes first, each a message of its own."""
    blocks = [block for block in message.get("content") or () if not _UNSAID & block.keys()]
    for block in blocks:
        if "toolResult" in block:
            yield _tool_answer(block["toolResult"])
    calls = [_call(block["toolUse"]) for block in blocks if "toolUse" in block]
    parts = [_part(b) for b in blocks if "toolUse" not in b and "toolResult" not in b]
    if parts or calls:
        said: dict[str, Any] = {"role": message["role"], "content": content_of(parts)}
        put(said, "tool_calls", calls)
        yield said


def _tool_answer(result: Mapping[str, Any]) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": text(block["json"])} if "json" in block else _part(block)
        for block in result.get("content") or ()
    ]
    return {
        "role": "tool",
        "tool_call_id": result["toolUseId"],
        "content": content_of(parts) or "",
    }


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    if "text" in block:
        return {"type": "text", "text": block["text"]}
    if "guardContent" in block:
        return _part(block["guardContent"].get("text") or {})
    if isinstance(image := block.get("image"), Mapping):
        source = image.get("source") or {}
        if isinstance(source.get("bytes"), str):
            return data_url(f"image/{image.get('format', 'png')}", source["bytes"])
        raise BadRow("an image of the prompt is kept elsewhere; the log holds its place only")
    kind = next(iter(block), "nothing")
    raise BadRow(f"Chat Completions have no form for content of kind {kind!r}")


def _call(use: Mapping[str, Any]) -> dict[str, Any]:
    return tool_call(use.get("toolUseId"), use["name"], use.get("input"))


def _reasoning(block: Mapping[str, Any]) -> str | None:
    told = (block.get("reasoningContent") or {}).get("reasoningText")
    return told.get("text") if isinstance(told, Mapping) else None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    spec = tool["toolSpec"]
    function: dict[str, Any] = {"name": spec["name"]}
    put(function, "description", spec.get("description"))
    put(function, "parameters", (spec.get("inputSchema") or {}).get("json"))
    put(function, "strict", spec.get("strict"))
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any] | None) -> Any:
    if not choice:
        return None
    if "tool" in choice:
        return {"type": "function", "function": {"name": choice["tool"]["name"]}}
    return "required" if "any" in choice else "auto"


def _grow(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        use = block.setdefault("toolUse", {})
        use["input"] = use.get("input", "") + (delta["toolUse"].get("input") or "")
    elif "text" in (more := delta.get("reasoningContent") or {}):
        told = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {"text": ""})
        told["text"] += more["text"]


def _sum(usage: Mapping[str, Any], *names: str) -> int | None:
    known = [usage[name] for name in names if usage.get(name) is not None]
    return sum(known) if known else None
