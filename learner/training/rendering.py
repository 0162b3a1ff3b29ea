"""Samples as tokens, rendered by the base's own chat template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learner.dataset.sample import Message, Sample
from learner.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and the completion that follows it, as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + self.completion

    @property
    def labels(self) -> tuple[int, ...]:
        """Only the completion is learnt."""
        return (-100,) * len(self.prompt) + self.completion


def render(tokenizer: Any, sample: Sample, answer: Message, stops: Sequence[int]) -> Rendered:
    """``answer`` as the model would have to write it, up to and with the token that stops it.

    The prompt is tokenised on its own, as the engine does, so that the boundary between
    prompt and completion falls where it falls when serving.
    """
    messages = [as_template_takes_it(message) for message in sample.messages]
    tools = [dict(tool) for tool in sample.tools] or None
    prompt = _text(tokenizer, messages, tools, add_generation_prompt=True)
    whole = _text(tokenizer, [*messages, as_template_takes_it(answer)], tools)
    if not whole.startswith(prompt):
        raise TrainingError(
            f"sample {sample.id}: the chat template writes an answer differently from its "
            "generation prompt, so the answer's own tokens cannot be told apart"
        )
    completion = _ids(tokenizer, whole[len(prompt) :])
    return Rendered(tuple(_ids(tokenizer, prompt)), _stopped(completion, stops))


def as_template_takes_it(message: Message) -> dict[str, Any]:
    """Templates want a call's arguments as an object; OpenAI's form has them as a JSON string."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {**message, "tool_calls": [_call(call) for call in calls]}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


def _text(tokenizer: Any, messages: Any, tools: Any, **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _stopped(completion: Sequence[int], stops: Sequence[int]) -> tuple[int, ...]:
    """``completion`` up to its last stop token; with one appended when it has none."""
    for end in range(len(completion), 0, -1):
        if completion[end - 1] in stops:
            return tuple(completion[:end])
    return (*completion, stops[0])


def stop_ids(tokenizer: Any, model: Any) -> tuple[int, ...]:
    """The tokens that end an answer, the tokenizer's own first."""
    configured = model.generation_config.eos_token_id
    many = configured if isinstance(configured, list) else [configured]
    ids = dict.fromkeys([tokenizer.eos_token_id, *many])
    return tuple(token for token in ids if token is not None)
