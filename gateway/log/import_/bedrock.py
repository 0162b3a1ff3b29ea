"""Amazon Bedrock's model invocation logs, as its S3 export lays them down.

One record becomes one invocation. ``requestMetadata`` becomes the tags. Who called is an AWS
role, not an end user, so ``identity`` makes no subject: that is Anthropic's ``metadata.user_id``,
or a ``user`` in the metadata.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.errors import BadRow
from gateway.log.import_ import converse
from gateway.log.import_.intake import Intake, canonical, end_user, mapping, moment, raw
from gateway.log.import_.invoke import CHAT, Dialect, dialect_of
from gateway.log.record import Invocation

_STREAMS: Final = frozenset({"ConverseStream", "InvokeModelWithResponseStream"})
_CONVERSE: Final = frozenset({"Converse", "ConverseStream"})
_OPERATIONS: Final = _CONVERSE | {"InvokeModel", "InvokeModelWithResponseStream"}
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_STATUS: Final = {
    "ValidationException": 400,
    "ServiceQuotaExceededException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "ServiceUnavailableException": 503,
}


class _Side(msgspec.Struct, rename="camel"):
    """The ``input`` or ``output`` of a record."""

    input_body_json: Any = None
    output_body_json: Any = None
    input_body_s3_path: str | None = msgspec.field(default=None, name="inputBodyS3Path")
    output_body_s3_path: str | None = msgspec.field(default=None, name="outputBodyS3Path")
    input_token_count: int | None = None
    output_token_count: int | None = None
    cache_read_input_token_count: int | None = None
    cache_write_input_token_count: int | None = None


class _Record(msgspec.Struct, rename="camel"):
    timestamp: str
    operation: str
    model_id: str
    request_id: str = ""
    error_code: str | None = None
    request_metadata: dict[str, Any] | None = None
    input: _Side = msgspec.field(default_factory=_Side)
    output: _Side = msgspec.field(default_factory=_Side)


_decoder = msgspec.json.Decoder(_Record)


def records(line: bytes, into: Intake) -> tuple[Invocation]:
    """The invocation that one line of a log holds. Raises BadRow, msgspec.DecodeError."""
    row = _decoder.decode(line)
    if row.operation not in _OPERATIONS:
        raise BadRow(f"operation {row.operation!r} is no text generation")
    asked = _body(row.input.input_body_json, row.input.input_body_s3_path, "request")
    if not isinstance(asked, Mapping):
        raise BadRow("the request's body is missing")
    dialect, operation = (converse, CHAT) if row.operation in _CONVERSE else dialect_of(asked)
    answered = None if row.error_code else _answer(row, dialect)
    metadata = row.request_metadata or mapping(asked.get("requestMetadata"))
    invocation = into.invocation(
        row.request_id or canonical(msgspec.json.decode(line)),
        ts=moment(row.timestamp),
        model=row.model_id,
        asked=_request(asked, dialect, into.alias or row.model_id, metadata),
        metadata=metadata,
        user=end_user(mapping(asked.get("metadata"))),
        operation_name=operation,
        provider_name="aws.bedrock",
        stream=row.operation in _STREAMS,
        status=_STATUS.get(row.error_code, 500) if row.error_code else 200,
        error_type=row.error_code or None,
        response_model=row.model_id,
        response_id=row.request_id or None,
        response=raw(answered),
        **_tokens(row, answered),
        **_times(row.output.output_body_json),
    )
    return (invocation,)


def _request(
    asked: Mapping[str, Any], dialect: Dialect, model: str, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    told = {"model": model, **dialect.request(asked)}
    for key, value in mapping(asked.get("additionalModelRequestFields")).items():
        told.setdefault(key, value)
    if metadata:
        told["metadata"] = metadata
    return told


def _answer(row: _Record, dialect: Dialect) -> dict[str, Any]:
    body = _body(row.output.output_body_json, row.output.output_body_s3_path, "answer")
    if isinstance(body, list):
        body = dialect.folded(chunk for chunk in body if isinstance(chunk, Mapping))
    if not isinstance(body, Mapping):
        raise BadRow("the answer's body is missing")
    told = dialect.response(body)
    return {"id": row.request_id, "model": row.model_id, **told}


def _body(body: Any, place: str | None, whose: str) -> Any:
    """A body as JSON. Raises BadRow when the log only says where it was put."""
    if body is None and place:
        raise BadRow(f"the {whose}'s body was too large for the log, which only names {place}")
    return msgspec.json.decode(body) if isinstance(body, str) else body


def _tokens(row: _Record, answered: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the record counts, where the answer itself does not."""
    if answered is not None and answered.get("usage"):
        return {}
    said = row.input
    counts = (
        said.input_token_count,
        said.cache_read_input_token_count,
        said.cache_write_input_token_count,
    )
    return {
        "input_tokens": None if counts[0] is None else sum(count or 0 for count in counts),
        "output_tokens": row.output.output_token_count,
        "cache_read_input_tokens": said.cache_read_input_token_count,
    }


def _times(body: Any) -> dict[str, Any]:
    """Seconds, from whichever metrics the answer brings along."""
    chunks: Iterable[Any] = reversed(body) if isinstance(body, list) else (body,)
    for chunk in chunks:
        if not isinstance(chunk, Mapping):
            continue
        measured = chunk.get(_METRICS) or mapping(chunk.get("metadata", chunk)).get("metrics")
        if isinstance(measured, Mapping):
            told = {
                "duration": measured.get("invocationLatency", measured.get("latencyMs")),
                "time_to_first_chunk": measured.get("firstByteLatency"),
            }
            return {key: value / 1000 for key, value in told.items() if value is not None}
    return {}
