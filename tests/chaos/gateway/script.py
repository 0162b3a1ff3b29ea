"""What a fake engine is going to answer, and the tokens that each piece of it tells of."""

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.chaos.gateway.ledger import Tokens

CHAT = "/v1/chat/completions"
BREAKS = 0.01
"""How many streams end in the middle."""
FAT_EVENTS, FAT = 60, "x" * 8192
"""More than sockets hold: for clients that read slowly."""

Json = dict[str, Any]


@dataclass(slots=True)
class Script:
    """One answer to one request."""

    key: str
    name: str
    model: str
    operation: str
    final: Tokens
    whole: bytes
    events: list[tuple[bytes, tuple[int, Tokens] | None]]
    """Each with the choice that it tells of; -1: all of them."""
    breaks: bool
    _latest: dict[int, Tokens] = field(default_factory=dict)

    @property
    def told(self) -> Tokens | None:
        """All that was sent: each choice counts its own answer, and the same prompt."""
        latest = self._latest
        if not latest:
            return None
        if -1 in latest:
            return latest[-1]
        return Tokens(
            prompt=next(iter(latest.values())).prompt,
            completion=sum(tokens.completion for tokens in latest.values()),
            reasoning=sum(tokens.reasoning for tokens in latest.values()),
        )

    def tell(self, told: tuple[int, Tokens] | None) -> None:
        """An event is out."""
        if told is not None:
            self._latest[told[0]] = told[1]

    def tell_all(self) -> None:
        """The answer is out in one piece."""
        self._latest[-1] = self.final


def write(asked: Json, call: str, rng: random.Random, *, chat: bool) -> Script:
    """An answer that begins with what was asked, so that nobody can take it for another's."""
    mark = asked["messages"][0]["content"] if chat else asked["prompt"]
    key, name, kind, _ = mark.split(" ", 3)
    n = asked.get("n") or 1
    prompt = rng.randint(1, 2000)
    length = FAT_EVENTS if kind == "fat" else rng.randint(1, 6)
    steps = [[rng.randint(1, 8) for _ in range(length)] for _ in range(n)]
    thinks = rng.randint(0, min(map(sum, steps))) if chat else 0
    final = Tokens(prompt, rng.randint(0, prompt), sum(map(sum, steps)), thinks * n)
    head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{call}", "created": 1, "model": asked["model"]}
    pen = _Pen(head, mark, FAT if kind == "fat" else " so", chat)
    events = pen.events(final, steps, thinks) if asked.get("stream") else []
    breaks = rng.random() < BREAKS
    return Script(
        key=key,
        name=name,
        model=asked["model"],
        operation="chat" if chat else "text_completion",
        final=final,
        whole=b"" if asked.get("stream") else pen.whole(final, n),
        events=events[: rng.randrange(len(events))] if breaks and events else events,
        breaks=breaks,
    )


@dataclass(frozen=True, slots=True)
class _Pen:
    head: Json
    mark: str
    text: str
    chat: bool

    def whole(self, final: Tokens, n: int) -> bytes:
        kind = "chat.completion" if self.chat else "text_completion"
        said: Json = {"message": {"role": "assistant", "content": self.mark}}
        said = said if self.chat else {"text": self.mark}
        choices = [{"index": index} | said | {"finish_reason": "stop"} for index in range(n)]
        body = self.head | {"object": kind, "choices": choices, "usage": self._usage(final, True)}
        return msgspec.json.encode(body)

    def events(
        self, final: Tokens, steps: list[list[int]], thinks: int
    ) -> list[tuple[bytes, tuple[int, Tokens] | None]]:
        """As vLLM tells of tokens: so far in each event, of the cache in the last one."""
        found: list[tuple[bytes, tuple[int, Tokens] | None]] = []
        for step in range(len(steps[0]) + 1):
            for index, sizes in enumerate(steps):
                written = sum(sizes[:step])
                told = Tokens(final.prompt, 0, written, min(thinks, written))
                last = "stop" if step == len(sizes) else None
                said = self.text if step else self.mark
                delta: Json = {"delta": {"content": said}} if self.chat else {"text": said}
                choice = {"index": index} | delta | {"finish_reason": last}
                found.append((self._event([choice], self._usage(told, False)), (index, told)))
        found.append((self._event([], self._usage(final, True)), (-1, final)))
        found.append((b"data: [DONE]\n\n", None))
        return found

    def _event(self, choices: list[Json], usage: Json) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = self.head | {"object": kind, "choices": choices, "usage": usage}
        return b"data: " + msgspec.json.encode(body) + b"\n\n"

    def _usage(self, tokens: Tokens, last: bool) -> Json:
        total = tokens.prompt + tokens.completion
        usage: Json = {"prompt_tokens": tokens.prompt, "total_tokens": total}
        usage["completion_tokens"] = tokens.completion
        if last:
            usage["prompt_tokens_details"] = {"cached_tokens": tokens.cached}
        if self.chat:
            usage["completion_tokens_details"] = {"reasoning_tokens": tokens.reasoning}
        return usage
