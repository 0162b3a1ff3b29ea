"""The W3C trace that a call belongs to, and what of it the engine is told.

The ids of a call's span follow from its invocation's id, so that a row of the log leads to its
span: the span's id is the invocation id's last 16 hex digits, and the trace, where the client
brings none, is the whole invocation id.
"""

import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec

from gateway.http.exchange import Headers

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"

SPAN_BITS: Final = 64
RANDOM_BITS: Final = 62
"""Of an invocation's id, at its end."""

# https://www.w3.org/TR/trace-context/#traceparent-header: zeros and version ff are invalid, and
# only later versions than 00 may append fields.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}"
    rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Of one call. ``headers`` go to the engine with it."""

    headers: Headers = []
    trace_id: int = 0
    parent_id: int = 0
    """The client's span; 0 when the call has none."""
    exported: bool = False
    """Whether the call becomes a span, whose id the engine was told as its parent."""


UNTRACED: Final = Trace()


def passed_on(headers: Mapping[bytes, bytes]) -> Trace:
    """The client's own trace, for the engine to continue as if nobody stood between."""
    traceparent = headers.get(TRACEPARENT)
    if traceparent is None:
        return UNTRACED
    return Trace(headers=[(TRACEPARENT, traceparent), *_state(headers)])


def continued(headers: Mapping[bytes, bytes], invocation_id: UUID, *, sample: float) -> Trace:
    """The call's place in the client's trace, or in one of its own.

    The client's sampled flag decides whether the call is exported; without a trace that is well
    formed, ``sample`` of calls are. The engine is told the decision either way.
    """
    found = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, b""))
    span_id = invocation_id.int & ((1 << SPAN_BITS) - 1)
    if found:
        trace_id, parent_id = int(found[1], 16), int(found[2], 16)
        exported = bool(int(found[3], 16) & 1)
        state = _state(headers)
    else:
        trace_id, parent_id, state = invocation_id.int, 0, []
        exported = invocation_id.int & ((1 << RANDOM_BITS) - 1) < sample * (1 << RANDOM_BITS)
    traceparent = b"00-%032x-%016x-%02x" % (trace_id, span_id, exported)
    return Trace([(TRACEPARENT, traceparent), *state], trace_id, parent_id, exported)


def _state(headers: Mapping[bytes, bytes]) -> Headers:
    state = headers.get(TRACESTATE)
    return [] if state is None else [(TRACESTATE, state)]
