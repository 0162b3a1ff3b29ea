"""What a call belongs to: its episode, parent, conversation, trace and end user, and its consent.

A header says it for clients that set headers once, ``metadata`` for those that only write
bodies; the header counts where both are given.
"""

import re
from collections.abc import Mapping
from uuid import UUID

import msgspec

from gateway.errors import InvalidRequest
from gateway.keys import Key
from gateway.log.subject import SubjectKey, episode_of, invocation_of
from gateway.surface import Parsed

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
_NOTHING: Mapping[str, str] = {}


class Context(msgspec.Struct, frozen=True, gc=False):
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
    parsed: Parsed,
    *,
    invocation_id: UUID,
    key: Key,
    subjects: SubjectKey,
) -> Context:
    """The context of a request. Raises InvalidRequest for a header of ours that is malformed.

    A call that names no episode is one of its own. A trace that is malformed is ignored, as the
    W3C asks; so is a malformed ``metadata.parent_id``, which may be the client's own.
    """
    metadata = parsed.metadata or _NOTHING
    trace_id, span_id = _trace(headers)
    episode = (
        _named(headers, EPISODE)
        or metadata.get("episode_id")
        or _header(headers, PORTKEY_TRACE)
        or trace_id
    )
    return Context(
        episode_of(key.tenant, episode) if episode else invocation_id,
        _parent(headers, metadata),
        _named(headers, CONVERSATION) or metadata.get("conversation_id") or None,
        trace_id,
        span_id,
        subjects.of(key.tenant, parsed.user) if parsed.user else None,
        key.train and parsed.store is not False and _consents(headers, metadata),
    )


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str:
    value = headers.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()


def _named(headers: Mapping[bytes, bytes], name: bytes) -> str:
    if name not in headers:
        return ""
    value = _header(headers, name)
    if len(value) > MAX_NAME:
        header = name.decode()
        raise InvalidRequest(
            f"The header {header} must be at most {MAX_NAME} characters.", param=header
        )
    return value


def _parent(headers: Mapping[bytes, bytes], metadata: Mapping[str, str]) -> UUID | None:
    if PARENT in headers and (named := _header(headers, PARENT)):
        parent = invocation_of(named)
        if parent is None:
            header = PARENT.decode()
            raise InvalidRequest(
                f"The header {header} must be an answer's id (chatcmpl-... or its request id).",
                param=header,
            )
        return parent
    return invocation_of(metadata["parent_id"]) if "parent_id" in metadata else None


def _trace(headers: Mapping[bytes, bytes]) -> tuple[str, str] | tuple[None, None]:
    if TRACEPARENT not in headers:
        return None, None
    found = _TRACEPARENT.fullmatch(_header(headers, TRACEPARENT))
    return (found.group(1), found.group(2)) if found else (None, None)


def _consents(headers: Mapping[bytes, bytes], metadata: Mapping[str, str]) -> bool:
    """Whether the call may be learnt from. Consent in doubt is no consent: only ``true`` is yes."""
    by_header = _header(headers, TRAIN) if TRAIN in headers else ""
    by_metadata = metadata.get("train_ok")
    return (not by_header or by_header.lower() == "true") and (
        not by_metadata or by_metadata.lower() == "true"
    )
