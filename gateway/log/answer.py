"""What the log reads out of a request and its answer: tokens, finish reasons, the prompt's hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def told(answer: Any) -> dict[str, Any]:
    """The columns that an answer fills, itself a ``chat.completion`` body or anything else."""
    body = answer if isinstance(answer, Mapping) else {}
    usage = body.get("usage") or {}
    return {
        "response_model": body.get("model"),
        "response_id": body.get("id"),
        "finish_reasons": [
            choice.get("finish_reason") or "" for choice in body.get("choices") or ()
        ],
        "input_tokens": usage.get("prompt_tokens"),
        "output_tokens": usage.get("completion_tokens"),
        "cache_read_input_tokens": _detail(usage, "prompt_tokens_details", "cached_tokens"),
        "reasoning_output_tokens": _detail(usage, "completion_tokens_details", "reasoning_tokens"),
    }


def prompt_hash(request: Any) -> str | None:
    """Equal messages and tools, equal hash, whatever the sampling settings."""
    if not isinstance(request, Mapping):
        return None
    prompt = {"messages": request.get("messages"), "tools": request.get("tools") or []}
    text = json.dumps(prompt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    value: int | None = (usage.get(group) or {}).get(name)
    return value
