"""What a call belongs to: its episode, parent, conversation, trace and end user, and its consent.

A header says it for clients that set headers once, ``metadata`` for those that only write
bodies; the header counts where both are given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from gateway.api.request import ChatRequest
from gateway.errors import InvalidRequest
from gateway.log.subject import SubjectKey, episode_of, invocation_of

EPISODE = "x-ratchet-episode-id"
PARENT = "x-ratchet-parent-id"
CONVERSATION = "x-ratchet-conversation-id"
TRAIN = "x-ratchet-train"
PORTKEY_TRACE = "x-portkey-trace-id"
TRACEPARENT = "traceparent"

MAX_NAME = 512
"""The longest name, as OpenAI limits the values of ``metadata``."""

# https://www.w3.org/TR/trace-context/#traceparent-header: zeros and version ff are invalid, and
# only later versions than 00 may append fields.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class Context:
    """Where one call stands among the others."""

    episode_id: UUID
    parent_id: UUID | None
    conversation_id: str | None
    trace_id: str | None
    span_id: str | None
    subject_id: str | None
    train_ok: bool


def context(
    headers: Mapping[bytes, bytes],
    request: ChatRequest,
    *,
    invocation_id: UUID,
    tenant: str,
    subjects: SubjectKey,
) -> Context:
    """The context of a request. Raises InvalidRequest for a header of ours that is malformed.

    A call that names no episode is one of its own. A trace that is malformed is ignored, as the
    W3C asks; so is a malformed ``metadata.parent_id``, which may be the client's own.
    """
    metadata = request.metadata or {}
    trace_id, span_id = _trace(_header(headers, TRACEPARENT))
    episode = (
        _named(headers, EPISODE)
        or metadata.get("episode_id")
        or _header(headers, PORTKEY_TRACE)
        or trace_id
    )
    user = request.safety_identifier or request.user
    return Context(
        episode_id=episode_of(tenant, episode) if episode else invocation_id,
        parent_id=_parent(headers, metadata),
        conversation_id=_named(headers, CONVERSATION) or metadata.get("conversation_id") or None,
        trace_id=trace_id,
        span_id=span_id,
        subject_id=subjects.of(tenant, user) if user else None,
        train_ok=_train_ok(headers, request),
    )


def _header(headers: Mapping[bytes, bytes], name: str) -> str:
    return headers.get(name.encode(), b"").decode("utf-8", "replace").strip()


def _named(headers: Mapping[bytes, bytes], header: str) -> str:
    name = _header(headers, header)
    if len(name) > MAX_NAME:
        raise InvalidRequest(
            f"The header {header} must be at most {MAX_NAME} characters.", param=header
        )
    return name


def _parent(headers: Mapping[bytes, bytes], metadata: Mapping[str, str]) -> UUID | None:
    named = _header(headers, PARENT)
    parent = invocation_of(named or metadata.get("parent_id", ""))
    if named and parent is None:
        raise InvalidRequest(
            f"The header {PARENT} must be the id of an answer (chatcmpl-... or its request id).",
            param=PARENT,
        )
    return parent


def _trace(traceparent: str) -> tuple[str, str] | tuple[None, None]:
    found = _TRACEPARENT.fullmatch(traceparent)
    return (found.group(1), found.group(2)) if found else (None, None)


def _train_ok(headers: Mapping[bytes, bytes], request: ChatRequest) -> bool:
    """Whether the call may be learnt from. Consent in doubt is no consent: only ``true`` is yes."""
    said = (_header(headers, TRAIN), (request.metadata or {}).get("train_ok", ""))
    return request.store is not False and all(not one or one.lower() == "true" for one in said)
