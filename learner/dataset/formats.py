"""Between the shapes that rows of training data come in and our Sample."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from learner.dataset.sample import Message, Sample
from learner.errors import DatasetError


def reference_of(demonstration: Message) -> Any:
    """What graders compare with: the call or calls of a tool-calling message, else its text."""
    calls = [_call(call) for call in demonstration.get("tool_calls") or ()]
    if not calls:
        return demonstration.get("content")
    return calls[0] if len(calls) == 1 else calls


def read_rft(path: Path) -> Iterator[Sample]:
    """The rows of an RFT file: OpenAI's and Bedrock's JSON lines.

    A row is ``{"messages": [... last role user], "reference_answer": any, "tools"?: [...],
    "id"?: str}``. Raises DatasetError with the line's number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _sample(json.loads(line), f"{path.stem}-{number}")
            except (ValueError, TypeError) as error:
                raise DatasetError(f"{path}, line {number}: {error}") from error


def _sample(row: Any, default_id: str) -> Sample:
    if not isinstance(row, Mapping) or not isinstance(row.get("messages"), list):
        raise ValueError("a row is an object with messages, a list")
    if not row["messages"]:
        raise ValueError("messages is empty")
    if "reference_answer" not in row:
        raise ValueError("reference_answer is missing")
    return Sample(
        id=str(row.get("id", default_id)),
        messages=tuple(row["messages"]),
        tools=tuple(row.get("tools") or ()),
        reference_answer=row["reference_answer"],
    )


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise DatasetError(f"a demonstrated call's arguments are no JSON: {error}") from error
    return {"name": function["name"], "arguments": arguments}
