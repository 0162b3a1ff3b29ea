"""Puts a streamed message of Anthropic's Messages API together."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

_JSON = "partial_json"
"""What a tool's input comes as, piece by piece."""


def message(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The body the same answer would have had without ``stream``, and ``error`` where it failed.

    Of one that was cut nobody knows how many tokens were written: what ``message_start`` says of
    that was said before there were any.
    """
    body: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    texts: dict[tuple[int, str], list[str]] = {}
    for event in events:
        match event:
            case {"type": "message_start", "message": dict(start)}:
                body |= start
                usage |= _object(start.get("usage")) | {"output_tokens": None}
            case {"type": "content_block_start", "content_block": dict(block)}:
                blocks[_index(event)] = {**block}
            case {"type": "content_block_delta", "delta": dict(delta)}:
                for name, text in delta.items():
                    if name != "type" and isinstance(text, str) and text:
                        texts.setdefault((_index(event), name), []).append(text)
            case {"type": "message_delta"}:
                body |= _object(event.get("delta"))
                usage |= _object(event.get("usage"))
            case {"error": error} if error:
                body |= {"type": body.get("type", "error"), "error": error}
                break
    for (index, name), pieces in texts.items():
        _put(blocks.setdefault(index, {"type": "text"}), name, "".join(pieces))
    if usage:
        body["usage"] = {name: value for name, value in usage.items() if value is not None}
    return body | {"content": [blocks[index] for index in sorted(blocks)]}


def _put(block: dict[str, Any], name: str, text: str) -> None:
    if name == _JSON:
        block["input"] = _input(text)
    else:
        begun = block.get(name)
        block[name] = (begun if isinstance(begun, str) else "") + text


def _input(text: str) -> Any:
    """As the model wrote it, byte for byte; one that was cut is a text."""
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return msgspec.Raw(text.encode())


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0
