"""Stored completions: the calls whose clients asked for ``store``, in OpenAI's shapes."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

import msgspec

from gateway.errors import InvalidRequest, NotFound
from gateway.log.chats import CHATS
from gateway.log.filter import Condition, MetadataFilter
from gateway.log.store import Store
from gateway.log.subject import ANSWER_PREFIX, invocation_of

_STORED = Condition(f"i.stored AND i.status = 200 AND i.error_type IS NULL AND {CHATS}", [])
_BODIES = """
SELECT i.id::VARCHAR AS id, i.ts, i.request, i.response, map_entries(coalesce((
  SELECT arg_max(e.tags, e.id) FROM edits e WHERE e.invocation_id = i.id), i.tags)) AS tags
FROM invocations i WHERE i.id IN (SELECT unnest(?::UUID[]))
"""
_ASKED = (
    *("tools", "tool_choice", "response_format", "temperature", "top_p"),
    *("presence_penalty", "frequency_penalty", "seed"),
)
"""What the stored object repeats of its request."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for."""

    after: str | None = None
    limit: int = 20
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, in OpenAI's shape."""

    data: Sequence[Mapping[str, Any]]
    has_more: bool

    def told(self) -> dict[str, Any]:
        """As JSON."""
        ids = [one["id"] for one in self.data]
        return {
            "object": "list",
            "data": list(self.data),
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": self.has_more,
        }


class Completions:
    """One tenant's. Every other's are not there."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._own = Condition.all([Condition("i.tenant = ?", [tenant]), _STORED])

    def page(
        self, window: Window, *, model: str | None = None, metadata: MetadataFilter | None = None
    ) -> Page:
        """In the order of their calls. Raises InvalidRequest for an ``after`` that is no id."""
        wanted = [self._own]
        if model is not None:
            named = Condition("(i.request_model = ? OR i.response_model = ?)", [model, model])
            wanted.append(named)
        if metadata is not None:
            wanted.append(metadata.sql())
        if window.after is not None:
            sign = "<" if window.descending else ">"
            wanted.append(Condition(f"i.id {sign} ?::UUID", [str(_cursor(window.after))]))
        order = "DESC" if window.descending else "ASC"
        # Ids first: a sort that carries bodies along reads all of them.
        found = self._find(Condition.all(wanted), f"ORDER BY i.id {order} LIMIT {window.limit + 1}")
        shown = found[: window.limit]
        whole = {row["id"]: row for row in self._store.rows(_BODIES, [shown])}
        return Page([_completion(whole[one]) for one in shown], len(found) > len(shown))

    def get(self, completion_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        return _completion(self._row(completion_id))

    def id_of(self, completion_id: str) -> UUID:
        """The invocation of a completion that is there. Raises NotFound."""
        return UUID(self._found(completion_id))

    def messages(self, completion_id: str, window: Window) -> Page:
        """What was asked, message by message. Raises NotFound, InvalidRequest."""
        row = self._row(completion_id)
        said = _decoded(row["request"]).get("messages") or ()
        messages = [
            _message(message, f"{_name(row['id'])}-{index}") for index, message in enumerate(said)
        ]
        if window.descending:
            messages.reverse()
        start = 0
        if window.after is not None:
            ids = [message["id"] for message in messages]
            if window.after not in ids:
                raise InvalidRequest("after must be the id of one of the messages", param="after")
            start = ids.index(window.after) + 1
        end = start + window.limit
        return Page(messages[start:end], end < len(messages))

    def _row(self, completion_id: str) -> dict[str, Any]:
        (row,) = self._store.rows(_BODIES, [[self._found(completion_id)]])
        return row

    def _found(self, completion_id: str) -> str:
        invocation = invocation_of(completion_id)
        named = Condition("i.id = ?::UUID", [str(invocation)])
        found = self._find(Condition.all([self._own, named])) if invocation else []
        if not found:
            raise NotFound(f"There is no stored completion {completion_id}.")
        return found[0]

    def _find(self, wanted: Condition, rest: str = "") -> list[str]:
        sql = f"SELECT i.id::VARCHAR AS id FROM invocations i WHERE {wanted.text} {rest}"  # noqa: S608
        return [row["id"] for row in self._store.rows(sql, wanted.parameters)]


def _completion(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as its client got it, and what OpenAI adds to a stored one."""
    request, answer = _decoded(row["request"]), _decoded(row["response"])
    created = int(row["ts"].replace(tzinfo=UTC).timestamp())
    asked = {name: request.get(name) for name in _ASKED}
    return {
        "created": created,
        "usage": None,
        "system_fingerprint": None,
        "service_tier": request.get("service_tier"),
        **_as_answered(answer, request),
        **asked,
        "object": "chat.completion",
        "id": _name(row["id"]),
        "request_id": row["id"],
        "input_user": request.get("user"),
        "metadata": {entry["key"]: entry["value"] for entry in row["tags"] or ()},
    }


def _as_answered(answer: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the log captured and the client did not ask for."""
    hidden = [] if request.get("logprobs") else ["logprobs"]
    hidden += [] if request.get("return_token_ids") else ["token_ids", "prompt_token_ids"]
    shown = _without(answer, hidden)
    shown["choices"] = [_without(choice, hidden) for choice in answer.get("choices") or ()]
    return shown


def _without(fields: Mapping[str, Any], hidden: Sequence[str]) -> dict[str, Any]:
    return {name: None if name in hidden else value for name, value in fields.items()}


def _message(message: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """One message of a request; a content of several parts is shown as parts."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "name": None,
        **message,
        "id": message_id,
        "content": None if parts is not None else content,
        "content_parts": parts,
    }


def _decoded(body: str | None) -> dict[str, Any]:
    try:
        decoded: Any = msgspec.json.decode(body or b"{}")
    except msgspec.ValidationError:  # a number that no float holds; others can be shown
        decoded = json.loads(body or "{}", parse_float=_number)
    return decoded if isinstance(decoded, dict) else {}


def _number(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _name(invocation_id: str) -> str:
    return ANSWER_PREFIX + UUID(invocation_id).hex


def _cursor(after: str) -> UUID:
    found = invocation_of(after)
    if found is None:
        raise InvalidRequest("after must be the id of a completion", param="after")
    return found
