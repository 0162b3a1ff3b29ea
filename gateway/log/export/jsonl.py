"""JSON lines to train on: OpenAI's SFT, DPO and RFT rows, NVIDIA's flywheel rows.

What was imported from such a file comes out as it went in, as JSON values. Rows that are not to
be learnt from stay (``gateway.log.chats``), and so do those whose bodies are gone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from gateway.log.chats import LEARNABLE
from gateway.log.export.selection import Selection, Source
from gateway.log.import_ import nvidia, openai
from gateway.log.import_.intake import mapping
from gateway.log.subject import invocation_of

_ROWS: Final = 1000
_PROMPT: Final = ("messages", "tools", "parallel_tool_calls")
_SAID: Final = ("role", "content", "tool_calls")
_encode = msgspec.json.Encoder().encode

Row = Mapping[str, Any]
"""A row of the log, its bodies still text, with ``said``: its newest feedback by name."""


class Shape(StrEnum):
    """What a line of the file is."""

    SFT = "sft"  # a prompt and its demonstration
    DPO = "dpo"  # a prompt, a preferred and a rejected answer
    RFT = "rft"  # a prompt and what graders compare with
    NVIDIA = "nvidia"  # a call as NVIDIA's data flywheel logs it


def lines(
    source: Source, selection: Selection, shape: Shape, *, answers: bool = False
) -> Iterator[bytes]:
    """The file, line by line, in constant memory.

    With ``answers``, what the model said stands in where an SFT row has no demonstration.
    Raises StoreError.
    """
    names = _FEEDBACK[shape]
    for row in _rows(source, selection, names, every=answers or not names):
        told = _MAKERS[shape](row)
        if told is None and answers:
            told = _answered(row)
        if told is not None:
            yield _encode(told) + b"\n"


def _rows(
    source: Source, selection: Selection, names: Sequence[str], *, every: bool
) -> Iterator[Row]:
    """The selected rows, a batch at a time, each batch with its feedback."""
    more = [LEARNABLE, "i.request IS NOT NULL"]
    if not every:
        more.append(f"(i.tenant, i.id) IN (SELECT (f.tenant, f.target_id) {_about(names)})")
    where = selection.where(*more)
    sql = f"SELECT {_COLUMNS} FROM invocations i WHERE {where.text}"  # noqa: S608 - our own
    for batch in source.batches(sql, where.parameters, rows=_ROWS):
        found = batch.to_pylist(maps_as_pydicts="strict")
        said = _said(source, selection.tenant, [row["id"] for row in found], names)
        _look_up_answers(source, selection.tenant, said)
        yield from ({**row, "said": said.get(row["id"], {})} for row in found)


def _said(
    source: Source, tenant: str, ids: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The newest feedback of each name on each of these invocations."""
    if not names or not ids:
        return {}
    marks = ", ".join("?" * len(ids))
    sql = (
        "SELECT f.target_id::VARCHAR AS id, f.name, arg_max(f.value::VARCHAR, f.id) AS value "
        f"{_about(names)} AND f.tenant = ? AND f.target_id IN ({marks}) GROUP BY ALL"
    )
    said: dict[str, dict[str, Any]] = {}
    for batch in source.batches(sql, [tenant, *ids]):
        for row in batch.to_pylist():
            said.setdefault(row["id"], {})[row["name"]] = json.loads(row["value"])
    return said


def _look_up_answers(source: Source, tenant: str, said: Mapping[str, dict[str, Any]]) -> None:
    """Put the answers into preferences that only name them; of one that is gone the name stays."""
    pairs = [one["preference"] for one in said.values() if isinstance(one.get("preference"), dict)]
    named = {
        str(found)
        for pair in pairs
        for answer in pair.values()
        if isinstance(answer, str) and (found := invocation_of(answer))
    }
    if not named:
        return
    marks = ", ".join("?" * len(named))
    sql = (
        "SELECT i.id::VARCHAR AS id, i.response::VARCHAR AS response FROM invocations i "  # noqa: S608
        f"WHERE i.tenant = ? AND i.train_ok AND i.id IN ({marks})"
    )
    answers = {
        row["id"]: _message(row["response"])
        for batch in source.batches(sql, [tenant, *named])
        for row in batch.to_pylist()
    }
    for pair in pairs:
        for side, answer in pair.items():
            if isinstance(answer, str):
                pair[side] = answers.get(str(invocation_of(answer)), answer)


def _about(names: Sequence[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names)
    return (
        "FROM feedback f WHERE f.target = 'invocation' AND f.value IS NOT NULL "
        f"AND f.name IN ({quoted})"
    )


def _sft(row: Row) -> dict[str, Any] | None:
    request, answer = _request(row), row["said"].get("demonstration")
    if request is None or not isinstance(answer, dict):
        return None
    return {**_prompt(request, row), "messages": [*request["messages"], answer]}


def _answered(row: Row) -> dict[str, Any] | None:
    """The prompt and what was answered; None for an answer that failed or was cut."""
    request, answer = _request(row), _message(row["response"])
    if request is None or row["status"] != 200 or answer is None:
        return None
    return {**_prompt(request, row), "messages": [*request["messages"], answer]}


def _message(response: str | None) -> dict[str, Any] | None:
    """The message of a whole answer."""
    choices = _object(response).get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    if mapping(choices[0]).get("finish_reason") not in ("stop", "tool_calls"):
        return None
    message = mapping(choices[0].get("message"))
    said = {key: message[key] for key in _SAID if message.get(key)}
    return said if len(said) > 1 else None


def _dpo(row: Row) -> dict[str, Any] | None:
    request, pair = _request(row), mapping(row["said"].get("preference"))
    preferred, rejected = (_messages(pair.get(key)) for key in ("preferred", "rejected"))
    if request is None or preferred is None or rejected is None:
        return None
    return {
        "input": _prompt(request, row),
        "preferred_output": preferred,
        "non_preferred_output": rejected,
    }


def _rft(row: Row) -> dict[str, Any] | None:
    request, said = _request(row), row["said"]
    if request is None:
        return None
    prompt: dict[str, Any] = {key: request[key] for key in _PROMPT if key in request}
    if isinstance(said.get("reference"), dict):
        return {**prompt, **said["reference"]}
    if isinstance(said.get("demonstration"), dict):
        return {**prompt, "reference_answer": _reference(said["demonstration"])}
    return None


def _nvidia(row: Row) -> dict[str, Any] | None:
    if row["status"] != 200 or not _object(row["response"]):
        return None
    tags = row["tags"] or {}
    when: datetime = row["ts"].replace(tzinfo=UTC)
    seconds = when.timestamp()
    written = int(seconds) if seconds.is_integer() else seconds
    return {
        "timestamp": json.loads(tags[nvidia.WHEN]) if nvidia.WHEN in tags else written,
        "workload_id": row["task"],
        "client_id": tags.get(nvidia.CLIENT, row["tenant"]),
        "request": msgspec.Raw(row["request"].encode()),
        "response": msgspec.Raw(row["response"].encode()),
    }


def _request(row: Row) -> dict[str, Any] | None:
    """The body of a chat; None for anything else."""
    body = _object(row["request"])
    return dict(body) if isinstance(body.get("messages"), list) else None


def _prompt(request: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Of a call what OpenAI's rows have room for; of a row that came from them everything."""
    if row["origin"] == openai.ORIGIN:
        return dict(request)
    return {key: request[key] for key in _PROMPT if request.get(key) is not None}


def _messages(answer: Any) -> list[Any] | None:
    """An answer as a list of messages, if it was given as that or as one message."""
    if isinstance(answer, list) and answer:
        return answer
    return [answer] if isinstance(answer, dict) else None


def _reference(demonstration: Mapping[str, Any]) -> Any:
    """What graders compare with: the call or the calls, else the text."""
    calls = [
        {"name": call["function"]["name"], "arguments": _object(call["function"]["arguments"])}
        for call in demonstration.get("tool_calls") or ()
    ]
    if not calls:
        return demonstration.get("content")
    return calls[0] if len(calls) == 1 else calls


def _object(text: str | None) -> Mapping[str, Any]:
    return mapping(None if text is None else json.loads(text))


_COLUMNS: Final = (
    "i.id::VARCHAR AS id, i.ts, i.tenant, i.task, i.origin, i.status, i.tags, "
    "i.request::VARCHAR AS request, i.response::VARCHAR AS response"
)
_FEEDBACK: Final[Mapping[Shape, Sequence[str]]] = {
    Shape.SFT: ("demonstration",),
    Shape.DPO: ("preference",),
    Shape.RFT: ("reference", "demonstration"),
    Shape.NVIDIA: (),
}
_MAKERS: Final[Mapping[Shape, Callable[[Row], dict[str, Any] | None]]] = {
    Shape.SFT: _sft,
    Shape.DPO: _dpo,
    Shape.RFT: _rft,
    Shape.NVIDIA: _nvidia,
}
