"""Puts a streamed answer together: server-sent events in, one ``chat.completion`` body out."""

from collections.abc import Iterator
from typing import Any

import msgspec


def events(sse: str) -> Iterator[dict[str, Any]]:
    """The JSON events of a stream, in order; an event cut by a disconnect is left out."""
    for line in sse.splitlines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event = msgspec.json.decode(data)
        except msgspec.DecodeError:
            continue
        if isinstance(event, dict):
            yield event


def completion(sse: str) -> dict[str, Any] | None:
    """The body the same answer would have had without ``stream``; None when nothing came."""
    body: dict[str, Any] | None = None
    choices: dict[int, dict[str, Any]] = {}
    for event in events(sse):
        if "error" in event:
            return {**(body or {}), "error": event["error"], "choices": _ordered(choices)}
        if body is None:
            body = {key: event[key] for key in ("id", "created", "model") if key in event}
            body["object"] = "chat.completion"
        for part in event.get("choices") or ():
            index = part.get("index", 0)
            choices.setdefault(index, {"index": index, "message": {"role": "assistant"}})
            _merge(choices[index], part)
        if event.get("usage"):
            body["usage"] = event["usage"]
    if body is not None:
        body["choices"] = _ordered(choices)
    return body


def _ordered(choices: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [choices[index] for index in sorted(choices)]


def _merge(choice: dict[str, Any], part: dict[str, Any]) -> None:
    """Fold one streamed choice into the answer so far: texts append, other fields replace."""
    message = choice["message"]
    for key, value in (part.get("delta") or {}).items():
        if key == "tool_calls":
            _merge_calls(message.setdefault("tool_calls", []), value or ())
        elif isinstance(value, str) and key != "role":
            message[key] = (message.get(key) or "") + value
        elif value is not None:
            message[key] = value
    if part.get("logprobs"):
        seen = choice.setdefault("logprobs", {})
        for key, tokens in part["logprobs"].items():
            if tokens is not None:
                seen[key] = (seen.get(key) or []) + tokens
    if part.get("token_ids"):
        choice["token_ids"] = choice.get("token_ids", []) + part["token_ids"]
    if part.get("finish_reason"):
        choice["finish_reason"] = part["finish_reason"]


def _merge_calls(calls: list[dict[str, Any]], deltas: Any) -> None:
    for delta in deltas:
        index = delta.get("index", 0)
        while len(calls) <= index:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[index]
        if delta.get("id"):
            call["id"] = delta["id"]
        for key in ("name", "arguments"):
            call["function"][key] += (delta.get("function") or {}).get(key) or ""
