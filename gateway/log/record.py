"""The records of the spool: one JSON line each, written by the gateway, read by the ingester."""

import hashlib
import random
import time
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.log.cipher import Cipher, is_sealed, open_line

SCHEMA_VERSION = 1

GATEWAY = "gateway"
"""The origin of what was served here; every other origin names an import."""


def new_id() -> UUID:
    """A UUIDv7 that sorts by its time of making, to a quarter of a microsecond.

    RFC 9562, section 6.2, method 3: the 12 bits after the milliseconds hold their fraction. The
    rest is to be unique, not secret; a forked process draws from a seed of its own.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    chance = random.getrandbits(62)
    return UUID(int=milliseconds << 80 | (0x7000 | fraction) << 64 | 0b10 << 62 | chance)


def named_id(milliseconds: int, name: str) -> UUID:
    """A UUIDv7 of that time which is the same whenever it is made: 74 bits of it hash ``name``."""
    bits = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:10]) >> 6
    high, low = divmod(bits, 1 << 62)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one guard said of a request or of its answer."""

    guard: str
    stage: str
    """``before`` the engine was asked, or ``after`` it answered."""
    action: str
    """``allow``, ``block``, ``redact``, ``flag``, or ``error`` when the guard itself failed."""
    reason: str | None = None
    score: float | None = None
    """In [0, 1], if the guard gave one: usable as a reward."""


class Invocation(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="invocation"
):
    """One logged call. Field for field the columns of ``invocations``, before ingest.

    ``request`` is the client's body, verbatim. The answer is either ``response`` (a JSON body)
    or ``sse`` (the streamed bytes as text), which the ingester assembles off the hot path.
    The last group of fields is what the ingester reads out of the answer; a record that brings
    them along (an import) is believed.
    """

    id: UUID
    ts: datetime
    tenant: str
    task: str
    episode_id: UUID
    request_model: str
    key_id: str | None = None
    operation_name: str = "chat"
    provider_name: str = "vllm"
    origin: str = GATEWAY
    parent_id: UUID | None = None
    conversation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    engine: str | None = None
    adapter: str | None = None
    arm: str | None = None
    propensity: float | None = None
    stream: bool = False
    status: int | None = None
    error_type: str | None = None
    time_to_first_chunk: float | None = None
    duration: float | None = None
    subject_id: str | None = None
    train_ok: bool = True
    stored: bool = False
    tags: dict[str, str] | None = None
    verdicts: list[Verdict] | None = None
    request: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")
    sse: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: list[str] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    cost: float | None = None
    prompt_hash: str | None = None
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
    origin: str = GATEWAY
    score_value: float | None = None
    score_label: str | None = None
    explanation: str | None = None
    value: Any = None
    source: str = "human"
    evaluator: str | None = None
    error_type: str | None = None
    tags: dict[str, str] | None = None
    v: int = SCHEMA_VERSION


class Edit(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="edit"
):
    """New metadata for a stored completion; the newest edit of an invocation counts."""

    id: UUID
    ts: datetime
    tenant: str
    invocation_id: UUID
    tags: dict[str, str]
    v: int = SCHEMA_VERSION


class Erasure(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="erasure"
):
    """What a tenant wants forgotten: a subject's rows, or one invocation.

    With ``scope`` ``rows`` the rows go; with ``bodies`` they stay for the bill, emptied of
    request and response. Rows of a subject that began after ``ts`` are not concerned.
    """

    id: UUID
    ts: datetime
    tenant: str
    scope: str = "rows"
    subject_id: str | None = None
    invocation_id: UUID | None = None
    reason: str | None = None
    v: int = SCHEMA_VERSION


class Incident(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="k", tag="incident"
):
    """What the log knows it lacks, or had to mend: it names its own gaps.

    ``kind`` is ``dropped`` (``n`` answers given without a record, by a best-effort task),
    ``quarantined`` (``n`` lines at ``at_byte`` of ``segment`` that cannot be read) or
    ``healed`` (the file was damaged; ``detail`` says what was put aside).
    """

    id: UUID
    ts: datetime
    kind: str
    n: int
    segment: str | None = None
    at_byte: int | None = None
    detail: str | None = None
    v: int = SCHEMA_VERSION


Record = Invocation | Feedback | Edit | Erasure | Incident

_SUM = b',"crc":"%08x"}'
"""Ends every plain line: a damaged one can still be JSON. A sealed line has its cipher's tag."""
_SUM_BYTES = len(_SUM % 0)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record, cipher: Cipher | None = None) -> bytes:
    """One line, newline included; sealed when there is a ``cipher``, else with a checksum.

    Line breaks inside a verbatim body can only be JSON white space (in strings they are
    escaped), so they become spaces without changing its meaning.
    """
    return bytes(encode_lines((record,), cipher))


def encode_lines(records: Iterable[Record], cipher: Cipher | None = None) -> bytearray:
    """A line of each, as ``encode`` makes them, in one piece of memory."""
    lines = bytearray()
    for record in records:
        if cipher is not None:
            lines += cipher.seal_line(_encoder.encode(record)) + b"\n"
            continue
        start = len(lines)
        _encoder.encode_into(record, lines, start)
        if lines.find(b"\n", start) >= 0 or lines.find(b"\r", start) >= 0:
            lines[start:] = lines[start:].replace(b"\n", b" ").replace(b"\r", b" ")
        with memoryview(lines) as view:
            crc = zlib.crc32(view[start:])
        lines[-1:] = _SUM % crc + b"\n"
    return lines


def decode(line: bytes, cipher: Cipher | None = None) -> Record:
    """The record of one line, sealed or plain.

    Raises msgspec.DecodeError (a ValueError) for a damaged one, CipherError (another) for one
    that ``cipher`` does not open.
    """
    plain = open_line(line, cipher) if is_sealed(line) else _checked(line)
    record: Record = _decoder.decode(plain)
    return record


def _checked(line: bytes) -> bytes:
    """The record's JSON as it was before its checksum was added."""
    plain = line[:-_SUM_BYTES] + b"}"
    if line[-_SUM_BYTES:] != _SUM % zlib.crc32(plain):
        raise msgspec.DecodeError("its checksum does not match: the line was damaged")
    return plain
