"""LiteLLM's spend logs: rows of its table ``LiteLLM_SpendLogs``.

The proxy keeps bodies only when told to (``store_prompts_in_spend_logs``); a row without them is
imported for the bill. What it cut short is rejected: half a prompt teaches the wrong thing.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.errors import BadRow
from gateway.log.import_.intake import Intake, mapping, moment, raw, tags_of
from gateway.log.record import Invocation

_OPERATIONS: Final = {
    "completion": "chat",
    "acompletion": "chat",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
}
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's names of providers where OpenTelemetry has others."""
_CUT: Final = b"litellm_truncated"


class _Row(msgspec.Struct):
    request_id: str
    call_type: str
    startTime: str  # noqa: N815 - LiteLLM's name
    endTime: str | None = None  # noqa: N815
    completionStartTime: str | None = None  # noqa: N815
    model: str | None = None
    model_group: str | None = None
    custom_llm_provider: str | None = None
    spend: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    end_user: str | None = None
    team_id: str | None = None
    session_id: str | None = None
    status: str | None = None
    metadata: Any = None
    request_tags: Any = None
    messages: Any = None
    response: Any = None
    proxy_server_request: Any = None


_decoder = msgspec.json.Decoder(_Row)


def records(line: bytes, into: Intake) -> tuple[Invocation]:
    """The invocation of one row. Raises BadRow, msgspec.DecodeError."""
    if _CUT in line:
        raise BadRow("LiteLLM cut its bodies (MAX_STRING_LENGTH_PROMPT_IN_DB)")
    row = _decoder.decode(line)
    if row.call_type not in _OPERATIONS:
        raise BadRow(f"call type {row.call_type!r} is no text generation")
    metadata = mapping(_opened(row.metadata))
    asked = _request(row)
    model = row.model_group or row.model or "unknown"
    started = moment(row.startTime)
    status, error_type = _status(row, metadata)
    invocation = into.invocation(
        row.request_id,
        ts=started,
        model=model,
        asked=asked,
        metadata=_tags(row, asked, metadata),
        user=row.end_user,
        conversation_id=row.session_id or None,
        operation_name=_OPERATIONS[row.call_type],
        provider_name=_provider(row),
        stream=bool(asked.get("stream")),
        status=status,
        error_type=error_type,
        response_model=row.model,
        response_id=row.request_id,
        response=raw(_opened(row.response) or None),
        input_tokens=row.prompt_tokens,
        output_tokens=row.completion_tokens,
        cost=row.spend,
        **_times(row, started),
    )
    return (invocation,)


def _opened(value: Any) -> Any:
    """A column of JSON, which dumps of the table hold as text or as itself."""
    if not isinstance(value, str) or not value:
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _request(row: _Row) -> Mapping[str, Any]:
    """The client's body, else one made of its messages; empty when LiteLLM kept neither."""
    body = mapping(_opened(row.proxy_server_request))
    # Older proxies wrapped the body together with the URL and the headers.
    body = mapping(body.get("body")) or body
    if "messages" in body or "prompt" in body:
        return body
    messages = _opened(row.messages)
    if not messages:
        return {}
    return {"model": row.model_group or row.model, "messages": messages}


def _tags(row: _Row, asked: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    """The client's own metadata, its team, and its tags: ``key:value`` as such, others as true."""
    tags = tags_of(asked.get("metadata")) or tags_of(metadata.get("requester_metadata"))
    for tag in _opened(row.request_tags) or ():
        key, found, value = str(tag).partition(":")
        tags[key.strip()] = value.strip() if found else "true"
    if row.team_id:
        tags["team_id"] = row.team_id
    return tags


def _provider(row: _Row) -> str:
    name = row.custom_llm_provider or (row.model or "").partition("/")[0] or "unknown"
    return _PROVIDERS.get(name, name)


def _status(row: _Row, metadata: Mapping[str, Any]) -> tuple[int, str | None]:
    if row.status != "failure" and metadata.get("status") != "failure":
        return 200, None
    error = mapping(metadata.get("error_information"))
    code = str(error.get("error_code") or "")
    return int(code) if re.fullmatch(r"[45]\d\d", code) else 500, str(
        error.get("error_class") or "failure"
    )


def _times(row: _Row, started: datetime) -> dict[str, Any]:
    """Seconds. LiteLLM gives answers that did not stream the end as their first chunk."""
    told = {}
    ended = moment(row.endTime) if row.endTime else None
    if ended is not None:
        told["duration"] = (ended - started).total_seconds()
    if row.completionStartTime:
        first = moment(row.completionStartTime)
        if ended is None or first < ended:
            told["time_to_first_chunk"] = (first - started).total_seconds()
    return told
