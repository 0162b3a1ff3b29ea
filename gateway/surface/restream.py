"""A whole answer as the events that would have told it: for one that was held back and changed."""

from collections.abc import Iterator
from typing import Any

import msgspec

Json = dict[str, Any]

_encoder = msgspec.json.Encoder()
_DONE = b"data: [DONE]\n\n"


def chunks(answer: Json) -> bytes:
    """Of chat completions and completions: each choice at once, then the usage, then the end."""
    head: Json = {name: answer[name] for name in ("id", "created", "model") if name in answer}
    is_chat = answer.get("object") != "text_completion"
    head["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    pieces = []
    for choice in answer.get("choices") or ():
        part = {name: value for name, value in choice.items() if name != "message"}
        if is_chat:
            part["delta"] = _delta(choice.get("message") or {})
        pieces.append(_event(head | {"choices": [part]}))
    if answer.get("usage"):
        pieces.append(_event(head | {"choices": [], "usage": answer["usage"]}))
    return b"".join([*pieces, _DONE])


def response(answer: Json) -> bytes:
    """Of Responses: its items as they are done, then all of it."""
    events = _items(answer)
    return b"".join(
        _named(event | {"sequence_number": number}) for number, event in enumerate(events)
    )


def message(answer: Json) -> bytes:
    """Of Messages: each block with one delta."""
    usage = answer.get("usage") or {}
    begun: Json = {"content": [], "stop_reason": None, "stop_sequence": None}
    begun["usage"] = usage | {"output_tokens": 0}
    events: list[Json] = [{"type": "message_start", "message": answer | begun}]
    for index, block in enumerate(answer.get("content") or ()):
        empty, delta = _block(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if delta is not None:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    why = {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
    events.append({"type": "message_delta", "delta": why, "usage": usage})
    events.append({"type": "message_stop"})
    return b"".join(map(_named, events))


def _delta(said: Json) -> Json:
    """A message's calls need an index in a stream."""
    calls = said.get("tool_calls")
    if not calls:
        return said
    return said | {"tool_calls": [{"index": at} | call for at, call in enumerate(calls)]}


def _items(answer: Json) -> Iterator[Json]:
    yield {"type": "response.created", "response": answer | _BEGUN}
    yield {"type": "response.in_progress", "response": answer | _BEGUN}
    for index, item in enumerate(answer.get("output") or ()):
        at: Json = {"output_index": index}
        yield {"type": "response.output_item.added", "item": item, **at}
        for number, part in enumerate(item.get("content") or ()):
            where = at | {"item_id": item.get("id", ""), "content_index": number}
            yield {"type": "response.content_part.added", "part": part | {"text": ""}, **where}
            if part.get("type") == "output_text":
                text = part.get("text", "")
                yield {"type": "response.output_text.delta", "delta": text, **_PLAIN, **where}
                yield {"type": "response.output_text.done", "text": text, **_PLAIN, **where}
            yield {"type": "response.content_part.done", "part": part, **where}
        yield {"type": "response.output_item.done", "item": item, **at}
    yield {"type": "response.completed", "response": answer}


_BEGUN: Json = {"status": "in_progress", "output": [], "usage": None}
_PLAIN: Json = {"logprobs": []}


def _block(block: Json) -> tuple[Json, Json | None]:
    """How a block of content begins, and what makes it whole."""
    kind = block.get("type")
    if kind == "text":
        return block | {"text": ""}, {"type": "text_delta", "text": block.get("text", "")}
    if kind == "thinking":
        said = block.get("thinking", "")
        return block | {"thinking": ""}, {"type": "thinking_delta", "thinking": said}
    if kind == "tool_use":
        arguments = _encoder.encode(block.get("input") or {}).decode()
        delta = {"type": "input_json_delta", "partial_json": arguments}
        return block | {"input": {}}, delta
    return block, None


def _event(body: Json) -> bytes:
    return b"data: " + _encoder.encode(body) + b"\n\n"


def _named(body: Json) -> bytes:
    name: str = body["type"]
    return b"event: " + name.encode() + b"\n" + _event(body)
