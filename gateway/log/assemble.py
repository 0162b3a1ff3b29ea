"""Puts a streamed answer together: server-sent events in, one body out."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from gateway.log.message import message
from gateway.log.response import response

_decoder = msgspec.json.Decoder()
_event = msgspec.json.Decoder(dict[str, Any])

_REPLACED = frozenset({"role", "id", "type", "index", "finish_reason", "stop_reason"})
"""Texts that come whole; all others come in pieces."""
_OBJECTS = {"chat.completion.chunk": "chat.completion"}


def events(sse: str) -> Iterator[dict[str, Any]]:
    """The JSON events of a stream, in order; an event cut by a disconnect is left out."""
    # As bytes: a text's own splitlines would also break at the line separators of Unicode.
    lines = sse.encode().splitlines()
    payloads = [line[5:] for line in lines if line.startswith(b"data:")]
    try:
        end = next(i for i, payload in enumerate(payloads) if payload.strip() == b"[DONE]")
    except StopIteration:
        end = len(payloads)
    for payload in payloads[:end]:
        try:
            yield _event.decode(payload)
        except (ValueError, RecursionError):
            continue


def completion(sse: str) -> dict[str, Any] | None:
    """The body the same answer would have had without ``stream``; None when nothing came.

    What came before a cut or an error is kept. Every field is, also those of one engine alone:
    texts are joined, lists go on, the rest is replaced by what came last: of several ``usage``
    the last one counts. Events that say their type are a response's, or else a message's.
    """
    stream = events(sse)
    first = next(stream, {})
    whole = chain([first], stream)
    if isinstance(kind := first.get("type"), str):
        return response(whole) if kind.startswith("response.") else message(whole)
    answer = _Answer()
    for event in whole:
        answer.add(event)
        if event.get("error"):
            break
    return answer.body()


class _Text(list[str]):
    """A text, while it still comes in pieces."""


class _Items(dict[int, dict[str, Any]]):
    """A list of objects by their index, while they still come in pieces."""


class _Answer:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._texts: list[tuple[dict[str, Any], str, _Text]] = []
        self._lists: list[tuple[dict[str, Any], str, _Items]] = []

    def add(self, event: dict[str, Any]) -> None:
        """Fold in one event."""
        top = self._top
        for key, value in event.items():
            if key == "choices":
                for part in value if isinstance(value, list) else ():
                    if isinstance(part, dict):
                        self._part(part)
            elif value is not None:
                top[key] = value

    def body(self) -> dict[str, Any] | None:
        """The answer as one body."""
        for holder, key, text in self._texts:
            if holder[key] is text:
                holder[key] = "".join(text)
        for holder, key, items in self._lists:
            if holder[key] is items:
                holder[key] = [_item(key, items[index]) for index in sorted(items)]
        if not self._top and not self._choices:
            return None
        kind = self._top.get("object", "chat.completion.chunk")
        self._top["object"] = _OBJECTS.get(kind, kind) if isinstance(kind, str) else kind
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**self._top, "choices": choices}

    def _part(self, part: dict[str, Any]) -> None:
        index = _index(part)
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = {"index": index}
        for key, value in part.items():
            if key == "delta":
                message = choice.get("message")
                if message is None:
                    message = choice["message"] = {"role": "assistant"}
                if isinstance(value, dict):
                    self._fold(message, value)
            elif value is not None and key != "index":
                self._put(choice, key, value)

    def _fold(self, target: dict[str, Any], more: dict[str, Any]) -> None:
        for key, value in more.items():
            held = target.get(key)
            if type(held) is _Text and type(value) is str:
                held.append(value)  # nearly always
            elif value is not None:
                self._put(target, key, value)

    def _put(self, target: dict[str, Any], key: str, value: Any) -> None:
        """Texts and lists go on, objects are folded in, anything else is replaced."""
        held = target.get(key)
        if isinstance(value, str) and key not in _REPLACED:
            target[key] = text = held if isinstance(held, _Text) else _Text()
            if text is not held:
                self._texts.append((target, key, text))
            text.append(value)
        elif isinstance(value, dict):
            if not isinstance(held, dict):
                held = target[key] = {}
            self._fold(held, value)
        elif isinstance(value, list):
            self._extend(target, key, held, value)
        else:
            target[key] = value

    def _extend(self, target: dict[str, Any], key: str, held: Any, more: list[Any]) -> None:
        """Tool calls and the like say which item they go on with; other lists just go on."""
        if more and all(isinstance(item, dict) and "index" in item for item in more):
            if not isinstance(held, _Items):
                held = target[key] = _Items()
                self._lists.append((target, key, held))
            for item in more:
                self._fold(held.setdefault(_index(item), {}), item)
        elif type(held) is list:
            held.extend(more)
        else:
            target[key] = list(more)


def _item(key: str, item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is outside a stream: a tool call has no index there, but a type."""
    if key != "tool_calls":
        return item
    return {"type": "function"} | {name: item[name] for name in item if name != "index"}


def _index(item: dict[str, Any]) -> int:
    index = item.get("index")
    return index if isinstance(index, int) else 0
