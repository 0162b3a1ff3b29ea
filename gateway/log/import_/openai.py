"""OpenAI's fine-tuning files: SFT, DPO and RFT rows, told apart by their shape.

A row becomes an invocation without an answer, and one piece of feedback that says the right
one. Nothing of a row is left out, so that an export writes it again as it was. Rows do not say
when they were made, nor what they are called: equal rows are the same row.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.errors import BadRow
from gateway.log.import_.intake import Intake, canonical
from gateway.log.record import Feedback, Invocation

ORIGIN: Final = "openai"
PROMPT: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
"""What a row's prompt is made of; all else in an RFT row is the graders'."""


def records(line: bytes, into: Intake) -> tuple[Invocation, Feedback]:
    """What one row holds. Raises BadRow, msgspec.DecodeError."""
    row = msgspec.json.decode(line)
    if not isinstance(row, dict):
        raise BadRow("a row is an object")
    request, name, value = _dpo(row) if "input" in row else _messages(row)
    invocation = into.invocation(
        canonical(row),
        ts=None,
        model=str(request.get("model") or into.task or "imported"),
        asked=request,
        provider_name="openai",
    )
    return invocation, into.feedback(invocation, name, value)


def _messages(row: dict[str, Any]) -> tuple[dict[str, Any], str, Any]:
    """An SFT row ends with the assistant's message, an RFT row with what it is to answer."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRow("a row has messages, or an input with preferred_output")
    if not all(isinstance(message, Mapping) and "role" in message for message in messages):
        raise BadRow("every message is an object with a role")
    if messages[-1]["role"] != "assistant":
        prompt = {key: row[key] for key in row if key in PROMPT}
        return prompt, "reference", {key: row[key] for key in row if key not in PROMPT}
    if "reference_answer" in row:
        raise BadRow("a row with a reference_answer ends with the user's message")
    if len(messages) == 1:
        raise BadRow("there is nothing before the assistant's message")
    return {**row, "messages": messages[:-1]}, "demonstration", messages[-1]


def _dpo(row: dict[str, Any]) -> tuple[dict[str, Any], str, Any]:
    request = row["input"]
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise BadRow("input is an object with messages")
    for key in ("preferred_output", "non_preferred_output"):
        if not isinstance(row.get(key), list) or not row[key]:
            raise BadRow(f"{key} is missing, or no list of messages")
    more = row.keys() - {"input", "preferred_output", "non_preferred_output"}
    if more:
        raise BadRow(f"a preference row has no {', '.join(sorted(more))}")
    value = {"preferred": row["preferred_output"], "rejected": row["non_preferred_output"]}
    return request, "preference", value
