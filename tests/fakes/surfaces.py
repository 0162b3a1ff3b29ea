"""What vLLM answers beside chat completions: each surface whole and as events, in its shapes."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

Json = dict[str, Any]

PROMPT_TOKENS = 5


class Answer(NamedTuple):
    """Both ways of giving it."""

    whole: Json
    events: list[bytes]


def event(body: Json) -> bytes:
    """As surfaces without names for their events write one."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def named(body: Json) -> bytes:
    """As the others do."""
    return f"event: {body['type']}\n".encode() + event(body)


def usage(prompt: int, written: int) -> Json:
    """In chat's words."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + written,
        "completion_tokens": written,
    }


def asks(body: Json, option: str) -> bool:
    """Whether a stream is asked for it; continuous usage only goes with usage."""
    options = body.get("stream_options") or {}
    return bool(options.get("include_usage") and options.get(option))


def completions(body: Json, call: str) -> Answer:
    """Goes on with each prompt in two words."""
    prompts = _prompts(body["prompt"])
    n = body.get("n") or 1
    head = {"id": f"cmpl-{call}", "object": "text_completion", "created": 1}
    head |= {"model": body["model"]}
    indexes = range(len(prompts) * n)
    texts = {index: ["well, ", str(index)] for index in indexes}
    choices = [
        {"index": index, "text": "".join(texts[index]), "logprobs": None, "finish_reason": "stop"}
        for index in indexes
    ]
    total = usage(PROMPT_TOKENS * len(prompts), 2 * len(choices))
    events = []
    for written, index in ((w, i) for w in (1, 2) for i in indexes):
        choice = {"index": index, "text": texts[index][written - 1], "logprobs": None}
        choice |= {"finish_reason": "stop" if written == 2 else None}
        told = {"usage": usage(PROMPT_TOKENS, written)}
        running = told if asks(body, "continuous_usage_stats") else {}
        events.append(event(head | {"choices": [choice]} | running))
    if asks(body, "include_usage"):
        events.append(event(head | {"choices": [], "usage": total}))
    return Answer(head | {"choices": choices, "usage": total}, [*events, b"data: [DONE]\n\n"])


def _prompts(prompt: Any) -> list[Any]:
    if not prompt:
        raise ValueError("there is no prompt")
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)


def embeddings(body: Json, call: str) -> Answer:
    """A short vector for each text."""
    given = body.get("input", body.get("messages"))
    texts = _prompts(given)
    data = [
        {"object": "embedding", "index": index, "embedding": [0.5, -0.5]}
        for index in range(len(texts))
    ]
    total = usage(PROMPT_TOKENS * len(texts), 0)
    head = {"id": f"embd-{call}", "object": "list", "created": 1, "model": body["model"]}
    return Answer(head | {"data": data, "usage": total}, [])


def responses(body: Json, call: str) -> Answer:
    """Two words."""
    words = [f"{body['model']}: ", _last(body["input"])]
    head = {"id": f"resp_{call}", "object": "response", "created_at": 1, "model": body["model"]}
    text = {"type": "output_text", "text": "".join(words), "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    spent = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
        "total_tokens": PROMPT_TOKENS + 2,
    }
    begun = head | {"status": "in_progress", "output": [], "usage": None}
    whole = head | {"status": "completed", "output": [item | {"content": [text]}], "usage": spent}
    numbers = count()

    def told(kind: str, **fields: Any) -> bytes:
        return named({"type": kind, "sequence_number": next(numbers)} | fields)

    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events = [told("response.created", response=begun)]
    events += [told("response.output_text.delta", delta=word, **at) for word in words]
    return Answer(whole, [*events, told("response.completed", response=whole)])


def messages(body: Json, call: str) -> Answer:
    """Two words."""
    words = [f"{body['model']}: ", _last(body["messages"])]
    head = {"id": f"chatcmpl-{call}", "type": "message", "role": "assistant"}
    head |= {"model": body["model"]}
    began: Json = {"content": [], "stop_reason": None}
    began |= {"usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 0}}
    spent = {"input_tokens": PROMPT_TOKENS, "output_tokens": 2}
    content = [{"type": "text", "text": "".join(words)}]
    whole = head | {"content": content, "stop_reason": "end_turn", "usage": spent}

    def deltas() -> Iterator[bytes]:
        for word in words:
            delta = {"type": "text_delta", "text": word}
            yield named({"type": "content_block_delta", "index": 0, "delta": delta})

    block = {"type": "text", "text": ""}
    return Answer(
        whole,
        [
            named({"type": "message_start", "message": head | began}),
            named({"type": "content_block_start", "index": 0, "content_block": block}),
            *deltas(),
            named({"type": "content_block_stop", "index": 0}),
            named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": spent}),
            named({"type": "message_stop"}),
        ],
    )


def _last(said: Any) -> str:
    return said if isinstance(said, str) else str(said[-1].get("content"))


OTHERS: Mapping[str, Callable[[Json, str], Answer]] = {
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/embeddings": embeddings,
    "/v1/messages": messages,
}
"""By path."""
