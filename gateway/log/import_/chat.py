"""The pieces of Chat Completions bodies that other APIs' bodies are made into."""

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.log.import_.intake import text


def put(body: dict[str, Any], key: str, value: Any) -> None:
    """Set what is there; leave out what is null, or an empty list."""
    if value is not None and value != []:
        body[key] = value


def joined(texts: Iterable[str | None]) -> str | None:
    """The texts as one; None when there is none."""
    there = [one for one in texts if one is not None]
    return "".join(there) if there else None


def content_of(parts: Sequence[dict[str, Any]]) -> Any:
    """A message's content: a lone text as itself, several parts as a list, nothing as null."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return list(parts)


def data_url(media_type: str, base64: str) -> dict[str, Any]:
    """An image that the message brings along."""
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{base64}"}}


def tool_call(call_id: Any, name: str, arguments: Any) -> dict[str, Any]:
    """A call of a tool. ``arguments`` is an object, or JSON text already."""
    told = arguments if isinstance(arguments, str) else text({} if arguments is None else arguments)
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": told or "{}"},
    }


def completion(
    message: dict[str, Any],
    finish_reason: str | None,
    *,
    prompt: int | None,
    answer: int | None,
    cached: int | None = None,
) -> dict[str, Any]:
    """A ``chat.completion`` body with one choice. Counts that are unknown are left out."""
    body: dict[str, Any] = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }
    usage: dict[str, Any] = {}
    put(usage, "prompt_tokens", prompt)
    put(usage, "completion_tokens", answer)
    if prompt is not None and answer is not None:
        usage["total_tokens"] = prompt + answer
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if usage:
        body["usage"] = usage
    return body
