"""The records of the spool: one JSON line each, written by the gateway, read by the ingester."""

import os
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

SCHEMA_VERSION = 1


def new_id() -> UUID:
    """A UUIDv7 that sorts by its time of making, to a quarter of a microsecond.

    RFC 9562, section 6.2, method 3: the 12 bits after the milliseconds hold their fraction.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=milliseconds << 80 | 0x7000 << 64 | fraction << 64 | 0b10 << 62 | random)


class Invocation(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="invocation"
):
    """One logged call. Field for field the columns of ``invocations``, before ingest.

    ``request`` is the client's body, verbatim. The answer is either ``response`` (a JSON body)
    or ``sse`` (the streamed bytes as text), which the ingester assembles off the hot path.
    """

    id: UUID
    ts: datetime
    tenant: str
    task: str
    episode_id: UUID
    request_model: str
    operation_name: str = "chat"
    provider_name: str = "vllm"
    conversation_id: str | None = None
    engine: str | None = None
    adapter: str | None = None
    arm: str | None = None
    propensity: float | None = None
    stream: bool = False
    status: int | None = None
    error_type: str | None = None
    time_to_first_chunk: float | None = None
    duration: float | None = None
    train_ok: bool = True
    tags: dict[str, str] | None = None
    request: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")
    sse: str | None = None
    v: int = SCHEMA_VERSION


class Feedback(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="feedback"
):
    """A later fact about an invocation or an episode."""

    id: UUID
    ts: datetime
    tenant: str
    target: str
    target_id: UUID
    name: str
    score_value: float | None = None
    score_label: str | None = None
    explanation: str | None = None
    value: Any = None
    source: str = "human"
    tags: dict[str, str] | None = None
    v: int = SCHEMA_VERSION


Record = Invocation | Feedback

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line, newline included.

    Line breaks inside a verbatim body can only be JSON white space (in strings they are
    escaped), so they become spaces without changing its meaning.
    """
    line = _encoder.encode(record)
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line + b"\n"


def decode(line: bytes) -> Record:
    """The record of one line. Raises msgspec.DecodeError for a damaged one."""
    record: Record = _decoder.decode(line)
    return record
