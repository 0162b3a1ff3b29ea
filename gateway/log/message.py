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
    made = _Message()
    for event in events:
        if made.add(event):
            break
    return made.body()


class _Message:
    """What has come of a message so far."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take in one event; whether it ends the message before its time."""
        match event:
            case {"type": "message_start", "message": dict(start)}:
                self._top |= start
                self._usage |= _object(start.get("usage")) | {"output_tokens": None}
            case {"type": "content_block_start", "content_block": dict(block)}:
                self._blocks[_index(event)] = {**block}
            case {"type": "content_block_delta", "delta": dict(delta)}:
                self._grow(_index(event), delta)
            case {"type": "message_delta"}:
                self._top |= _object(event.get("delta"))
                self._usage |= _object(event.get("usage"))
            case {"error": error} if error:
                self._top |= {"type": self._top.get("type", "error"), "error": error}
                return True
        return False

    def body(self) -> dict[str, Any]:
        """The message as one body."""
        for (index, name), pieces in self._texts.items():
            _put(self._blocks.setdefault(index, {"type": "text"}), name, "".join(pieces))
        if self._usage:
            told = {name: value for name, value in self._usage.items() if value is not None}
            self._top["usage"] = told
        return self._top | {"content": [self._blocks[index] for index in sorted(self._blocks)]}

    def _grow(self, index: int, delta: Mapping[str, Any]) -> None:
        for name, text in delta.items():
            if name != "type" and isinstance(text, str) and text:
                self._texts.setdefault((index, name), []).append(text)


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
