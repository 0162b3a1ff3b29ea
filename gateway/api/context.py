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

EPISODE = b"x-ratchet-episode-id"
PARENT = b"x-ratchet-parent-id"
CONVERSATION = b"x-ratchet-conversation-id"
TRAIN = b"x-ratchet-train"
PORTKEY_TRACE = b"x-portkey-trace-id"
TRACEPARENT = b"traceparent"

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
        train_ok=_train_ok(headers, metadata, store=request.store),
    )


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str:
    value = headers.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()


def _named(headers: Mapping[bytes, bytes], name: bytes) -> str:
    value = _header(headers, name)
    if len(value) > MAX_NAME:
        header = name.decode()
        raise InvalidRequest(
            f"The header {header} must be at most {MAX_NAME} characters.", param=header
        )
    return value


def _parent(headers: Mapping[bytes, bytes], metadata: Mapping[str, str]) -> UUID | None:
    if named := _header(headers, PARENT):
        parent = invocation_of(named)
        if parent is None:
            header = PARENT.decode()
            raise InvalidRequest(
                f"The header {header} must be an answer's id (chatcmpl-... or its request id).",
                param=header,
            )
        return parent
    return invocation_of(metadata["parent_id"]) if "parent_id" in metadata else None


def _trace(traceparent: str) -> tuple[str, str] | tuple[None, None]:
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return (found.group(1), found.group(2)) if found else (None, None)


def _train_ok(
    headers: Mapping[bytes, bytes], metadata: Mapping[str, str], *, store: bool | None
) -> bool:
    """Whether the call may be learnt from. Consent in doubt is no consent: only ``true`` is yes."""
    by_header, by_metadata = _header(headers, TRAIN), metadata.get("train_ok")
    return (
        store is not False
        and (not by_header or by_header.lower() == "true")
        and (not by_metadata or by_metadata.lower() == "true")
    )
