"""One training example, whatever it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""A chat message in OpenAI's form: role, content, tool_calls."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and what is known of its right answer.

    ``demonstration`` is the assistant message somebody gave as the right answer;
    ``reference_answer`` is what graders compare with: for a tool call
    ``{"name": str, "arguments": dict}`` (a list of them for several calls), else any JSON value.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    reference_answer: Any = None
    demonstration: Message | None = None
