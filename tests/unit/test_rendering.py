"""Demonstrations as tokens, with a tokenizer of one token per character."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from learner.dataset.sample import Message, Sample
from learner.errors import TrainingError
from learner.training.rendering import render

END = ord("#")
TOOLS = ({"type": "function", "function": {"name": "add"}},)


class Characters:
    """Renders ``role:text#`` and one newline a message; ``head`` opens an answer."""

    def __init__(self, head: str = "assistant:") -> None:
        self._head = head

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any,
        tokenize: bool,
        add_generation_prompt: bool = False,
    ) -> str:
        assert not tokenize
        text = f"[{len(tools or ())} tools]\n" + "".join(self._line(one) for one in messages)
        return text + (self._head if add_generation_prompt else "")

    def _line(self, message: Mapping[str, Any]) -> str:
        calls = [one["function"]["arguments"]["n"] for one in message.get("tool_calls") or ()]
        return f"{message['role']}:{message.get('content') or calls}#\n"

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(character) for character in text]}


def sample(answer: Message) -> Sample:
    prompt = ({"role": "user", "content": "1+1"},)
    return Sample(id="s1", messages=prompt, tools=TOOLS, demonstration=answer)


def rendered(answer: Message, **tokenizer: Any) -> tuple[str, str]:
    one = render(Characters(**tokenizer), sample(answer), answer, (END,))
    return "".join(map(chr, one.prompt)), "".join(map(chr, one.completion))


def test_the_completion_ends_with_the_token_that_stops_it() -> None:
    prompt, completion = rendered({"role": "assistant", "content": "2"})

    assert prompt == "[1 tools]\nuser:1+1#\nassistant:"
    assert completion == "2#"


def test_a_calls_arguments_reach_the_template_as_an_object() -> None:
    function = {"name": "add", "arguments": json.dumps({"n": 2})}

    _, completion = rendered({"role": "assistant", "tool_calls": [{"function": function}]})

    assert completion == "[2]#"


def test_only_the_completion_is_learnt() -> None:
    answer = {"role": "assistant", "content": "2"}

    one = render(Characters(), sample(answer), answer, (END,))

    assert one.labels == (-100,) * len(one.prompt) + (ord("2"), END)
    assert len(one.labels) == len(one.ids)


def test_an_answer_that_no_token_stops_gets_one() -> None:
    answer = {"role": "assistant", "content": "2"}

    one = render(Characters(), sample(answer), answer, (7,))

    assert one.completion[-1] == 7


def test_a_template_that_writes_answers_differently_is_refused() -> None:
    with pytest.raises(TrainingError, match="s1"):
        rendered({"role": "assistant", "content": "2"}, head="robot:")
