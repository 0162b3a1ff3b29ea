"""Records of the spool become rows of the log: the border between the two vocabularies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from gateway.log.answer import Answer, Usage, prompt_hash, read, without_vectors
from gateway.log.assemble import completion
from gateway.log.cost import Price
from gateway.log.record import Edit, Feedback, Incident, Invocation, named_id

Row = tuple[Any, ...]

_ID = pa.uuid()
_TAGS = pa.map_(pa.string(), pa.string())
_TS = pa.timestamp("us")

INVOCATIONS = pa.schema(
    [
        ("id", _ID),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("tenant", pa.string()),
        ("key_id", pa.string()),
        ("task", pa.string()),
        ("episode_id", _ID),
        ("parent_id", _ID),
        ("conversation_id", pa.string()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("operation_name", pa.string()),
        ("provider_name", pa.string()),
        ("origin", pa.string()),
        ("request_model", pa.string()),
        ("response_model", pa.string()),
        ("response_id", pa.string()),
        ("engine", pa.string()),
        ("adapter", pa.string()),
        ("arm", pa.string()),
        ("propensity", pa.float64()),
        ("stream", pa.bool_()),
        ("finish_reasons", pa.list_(pa.string())),
        ("status", pa.int16()),
        ("error_type", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cache_read_input_tokens", pa.int32()),
        ("reasoning_output_tokens", pa.int32()),
        ("time_to_first_chunk", pa.float64()),
        ("duration", pa.float64()),
        ("cost", pa.float64()),
        ("subject_id", pa.string()),
        ("train_ok", pa.bool_()),
        ("stored", pa.bool_()),
        ("prompt_hash", pa.string()),
        ("tags", _TAGS),
        ("verdicts", pa.string()),
        ("schema_version", pa.int16()),
        ("request", pa.string()),
        ("response", pa.string()),
    ]
)

FEEDBACK = pa.schema(
    [
        ("id", _ID),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("tenant", pa.string()),
        ("target", pa.string()),
        ("target_id", _ID),
        ("name", pa.string()),
        ("origin", pa.string()),
        ("score_value", pa.float64()),
        ("score_label", pa.string()),
        ("explanation", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("evaluator", pa.string()),
        ("error_type", pa.string()),
        ("tags", _TAGS),
    ]
)

EDITS = pa.schema(
    [
        ("id", _ID),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("tenant", pa.string()),
        ("invocation_id", _ID),
        ("tags", _TAGS),
    ]
)

INCIDENTS = pa.schema(
    [
        ("id", _ID),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("kind", pa.string()),
        ("n", pa.int32()),
        ("segment", pa.string()),
        ("at_byte", pa.int64()),
        ("detail", pa.string()),
    ]
)

_NO_USAGE = Usage()
_encoder = msgspec.json.Encoder()


def invocation(
    record: Invocation, at: datetime, prices: Mapping[str, Price], *, bare: bool = False
) -> Row:
    """The row of one invocation; a streamed answer is assembled here, off the hot path.

    ``bare`` leaves out the bodies, and with them the consent to learn. Raises ValueError or
    RecursionError for bodies that the log cannot hold.
    """
    body: bytes | msgspec.Raw = record.response
    if record.sse is not None:
        body = _encoder.encode(completion(record.sse))
    elif record.operation_name == "embeddings":
        body = without_vectors(body)
    answer = read(body)
    usage = answer.usage or _NO_USAGE
    prompt, written = usage.prompt_tokens_details, usage.completion_tokens_details
    tokens = (
        _first(record.input_tokens, usage.prompt_tokens),
        _first(record.output_tokens, usage.completion_tokens),
        _first(record.cache_read_input_tokens, prompt and prompt.cached_tokens),
        _first(record.reasoning_output_tokens, written and written.reasoning_tokens),
    )
    cost = record.cost
    if cost is None and (price := prices.get(record.request_model)) is not None:
        cost = _cost(price, *tokens[:3])
    error_type = record.error_type
    if error_type is None and answer.failed and (record.status or 200) < 400:
        # vLLM tells of its failure inside the stream and then ends it as if all were well.
        error_type = "engine_error"
    return (
        record.id.bytes,
        record.ts,
        at,
        record.tenant,
        record.key_id,
        record.task,
        record.episode_id.bytes,
        None if record.parent_id is None else record.parent_id.bytes,
        record.conversation_id,
        record.trace_id,
        record.span_id,
        record.operation_name,
        record.provider_name,
        record.origin,
        record.request_model,
        _first(record.response_model, answer.model),
        _first(record.response_id, answer.id),
        record.engine,
        record.adapter,
        record.arm,
        record.propensity,
        record.stream,
        _first(record.finish_reasons, answer.finish_reasons),
        record.status,
        error_type,
        *tokens,
        record.time_to_first_chunk,
        record.duration,
        cost,
        record.subject_id,
        record.train_ok and not bare,
        record.stored and not bare,
        record.prompt_hash or _prompt_hash(record, answer),
        record.tags or None,
        None if bare or not record.verdicts else _encoder.encode(record.verdicts).decode(),
        record.v,
        None if bare else _text(record.request),
        None if bare else _text(body),
    )


def feedback(record: Feedback, at: datetime) -> Row:
    """The row of one piece of feedback."""
    return (
        record.id.bytes,
        record.ts,
        at,
        record.tenant,
        record.target,
        record.target_id.bytes,
        record.name,
        record.origin,
        record.score_value,
        record.score_label,
        record.explanation,
        None if record.value is None else _encoder.encode(record.value).decode(),
        record.source,
        record.evaluator,
        record.error_type,
        record.tags or None,
    )


def opinions(record: Invocation, *, bare: bool = False) -> Iterator[Feedback]:
    """What guards said with a score, as feedback on the call: the same each time it is read.

    ``bare`` leaves out their reasons, which may quote the bodies.
    """
    for verdict in record.verdicts or ():
        if verdict.score is not None:
            yield Feedback(
                id=named_id(record.id.int >> 80, f"{record.id}\0{verdict.guard}\0{verdict.stage}"),
                ts=record.ts,
                tenant=record.tenant,
                target="invocation",
                target_id=record.id,
                name=verdict.guard,
                origin=record.origin,
                score_value=verdict.score,
                explanation=None if bare else verdict.reason,
                source="guard",
                evaluator=f"{verdict.guard}:{verdict.stage}",
                tags={"stage": verdict.stage, "action": verdict.action},
            )


def edit(record: Edit, at: datetime) -> Row:
    """The row of one change of a stored completion's metadata."""
    return (
        record.id.bytes,
        record.ts,
        at,
        record.tenant,
        record.invocation_id.bytes,
        # None at all is an edit, too: an empty map, not NULL.
        record.tags,
    )


def incident(record: Incident, at: datetime) -> Row:
    """The row of one incident."""
    return (
        record.id.bytes,
        record.ts,
        at,
        record.kind,
        record.n,
        record.segment,
        record.at_byte,
        record.detail,
    )


def table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """An Arrow table of ``rows``. Raises pa.ArrowException, OverflowError for what never fits."""
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _first(brought: Any, read: Any) -> Any:
    """What the record brought along is believed."""
    return read if brought is None else brought


def _cost(price: Price, read: int | None, written: int | None, cached: int | None) -> float | None:
    if read is None and written is None:
        return None
    return price.of(read or 0, written or 0, cached or 0)


def _prompt_hash(record: Invocation, answer: Answer) -> str | None:
    """Of a chat completion alone: whoever learns goes by it, and knows no other messages."""
    is_chat = record.operation_name == "chat" and not answer.is_message
    return prompt_hash(record.request) if is_chat else None


def _text(body: bytes | msgspec.Raw) -> str | None:
    """A body as it came, byte for byte. Raises UnicodeDecodeError."""
    text = str(body, "utf-8")
    # What was erased is padded, so that lines keep their length.
    return None if text.rstrip() == "null" else text
