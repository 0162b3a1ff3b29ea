"""Records of the spool become rows of the log: the border between the two vocabularies."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from gateway.log.answer import prompt_hash, told
from gateway.log.assemble import completion
from gateway.log.record import Feedback, Invocation

_TAGS = pa.map_(pa.string(), pa.string())
_TS = pa.timestamp("us")

INVOCATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("tenant", pa.string()),
        ("task", pa.string()),
        ("episode_id", pa.string()),
        ("parent_id", pa.string()),
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
        ("schema_version", pa.int16()),
        ("request", pa.string()),
        ("response", pa.string()),
    ]
)

FEEDBACK = pa.schema(
    [
        ("id", pa.string()),
        ("ts", _TS),
        ("ingest_ts", _TS),
        ("tenant", pa.string()),
        ("target", pa.string()),
        ("target_id", pa.string()),
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


def invocation_row(record: Invocation, ingested_at: datetime) -> dict[str, Any]:
    """The row of one invocation; a streamed answer is assembled here, off the hot path."""
    request = json.loads(bytes(record.request))
    response = completion(record.sse) if record.sse else json.loads(bytes(record.response))
    answer = response if isinstance(response, dict) else {}
    row = _shared(record, ingested_at)
    if "error" in answer and not record.error_type:
        # vLLM tells of its failure inside the stream and then ends it as if all were well.
        row["error_type"] = "engine_error"
    row |= told(answer)
    return row | {
        "episode_id": str(record.episode_id),
        "prompt_hash": prompt_hash(request),
        "schema_version": record.v,
        "request": bytes(record.request).decode(),
        "response": json.dumps(response) if record.sse else bytes(record.response).decode(),
    }


def feedback_row(record: Feedback, ingested_at: datetime) -> dict[str, Any]:
    """The row of one piece of feedback."""
    row = _shared(record, ingested_at)
    row["target_id"] = str(record.target_id)
    row["value"] = None if record.value is None else json.dumps(record.value)
    return row


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """An Arrow table of ``rows``; columns they lack are NULL."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def _shared(record: Invocation | Feedback, ingested_at: datetime) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in record.__struct_fields__ if name not in _BODIES}
    row["id"] = str(record.id)
    row["ts"] = record.ts.replace(tzinfo=None)
    row["ingest_ts"] = ingested_at.replace(tzinfo=None)
    row["tags"] = list(record.tags.items()) if record.tags else None
    return row


_BODIES = frozenset({"request", "response", "sse", "v"})
