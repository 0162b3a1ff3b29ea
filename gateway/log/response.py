"""Puts a streamed response of OpenAI's Responses API together."""

from collections.abc import Iterable, Mapping
from typing import Any

_TEXTS = {
    "response.output_text.delta": ("content", "text"),
    "response.refusal.delta": ("content", "refusal"),
    "response.reasoning_text.delta": ("content", "text"),
    "response.reasoning_summary_text.delta": ("summary", "text"),
    "response.function_call_arguments.delta": ("", "arguments"),
    "response.custom_tool_call_input.delta": ("", "input"),
}
"""Where the pieces of a text belong: in parts of a list of the item, or in itself; the field."""
_PARTS = {
    "response.content_part.added": "content",
    "response.reasoning_summary_part.added": "summary",
}
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

Place = tuple[int, str, int]
"""An item, one of its lists, and the part in that; no list: the item itself."""


def response(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The body the same answer would have had without ``stream``, and ``error`` where it failed.

    The last event brings all of it. One that was cut is put together from what came.
    """
    made = _Response()
    for event in events:
        if made.add(event):
            break
    return made.body()


class _Response:
    """What has come of a response so far."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._whole = False
        self._items: dict[int, dict[str, Any]] = {}
        self._done: set[int] = set()
        self._parts: dict[Place, dict[str, Any]] = {}
        self._texts: dict[tuple[Place, str], list[str]] = {}

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take in one event; whether it was the last."""
        kind = str(event.get("type"))
        if error := event.get("error") or (kind == "error" and {**event}):
            self._top["error"] = error
            return True
        if isinstance(whole := event.get("response"), dict):
            self._top |= whole
            self._whole = kind in _ENDS
        elif isinstance(item := event.get("item"), dict):
            index = _index(event, "output_index")
            self._items[index] = {**item}
            if kind == "response.output_item.done":
                self._done.add(index)
        elif kind in _PARTS and isinstance(part := event.get("part"), dict):
            self._part(_place(event, _PARTS[kind])).update(part)
        elif kind in _TEXTS and isinstance(piece := event.get("delta"), str):
            holder, field = _TEXTS[kind]
            self._texts.setdefault((_place(event, holder), field), []).append(piece)
        return self._whole

    def body(self) -> dict[str, Any]:
        """The response as one body."""
        if self._whole:
            return self._top
        for (place, field), pieces in self._texts.items():
            self._part(place)[field] = "".join(pieces)
        lists: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for place in sorted(self._parts):
            index, holder, _ = place
            lists.setdefault((index, holder), []).append(self._parts[place])
        for (index, holder), parts in lists.items():
            item = self._items.setdefault(index, {})
            if index not in self._done:
                item.update({holder: parts} if holder else parts[0])
        output = [self._items[index] for index in sorted(self._items)]
        return {"object": "response", **self._top, "output": output}

    def _part(self, place: Place) -> dict[str, Any]:
        return self._parts.setdefault(place, {})


def _place(event: Mapping[str, Any], holder: str) -> Place:
    return _index(event, "output_index"), holder, _index(event, f"{holder}_index")


def _index(event: Mapping[str, Any], name: str) -> int:
    index = event.get(name)
    return index if isinstance(index, int) else 0
