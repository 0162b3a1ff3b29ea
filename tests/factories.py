"""Ready-made values for tests; each takes what matters to the test as a keyword."""

import itertools
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.log.import_.intake import Intake
from gateway.log.record import Feedback, Invocation, new_id
from gateway.log.subject import SubjectKey, episode_of
from gateway.surface import Parsed

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)

_counter = itertools.count()


def invocation(**changes: Any) -> Invocation:
    """One answered call of alias ``helpdesk``; every one asks something else."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "ts": NOW,
        "tenant": "default",
        "task": "helpdesk",
        "episode_id": new_id(),
        "request_model": "helpdesk",
        "status": 200,
        "request": body(f"question {next(_counter)}"),
        "response": msgspec.Raw(
            b'{"id":"chatcmpl-1","model":"base","choices":[{"finish_reason":"stop",'
            b'"message":{"role":"assistant","content":"hi"}}],'
            b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
        ),
    }
    return Invocation(**(fields | changes))


def parsed(**changes: Any) -> Parsed:
    """A request for ``helpdesk`` as a surface has read it."""
    fields: dict[str, Any] = {
        "model": "helpdesk",
        "stream": False,
        "n": 1,
        "store": None,
        "metadata": {},
        "user": None,
        "max_tokens": None,
        "fields": {},
    }
    return Parsed(**(fields | changes))


def body(text: str) -> msgspec.Raw:
    """A chat request that asks ``text``."""
    request = {"model": "helpdesk", "messages": [{"role": "user", "content": text}]}
    return msgspec.Raw(msgspec.json.encode(request))


def demonstration(target: UUID, *, name: str = "refund", **arguments: str) -> Feedback:
    """Feedback that calls tool ``name`` as the right answer to ``target``."""
    call = {
        "type": "function",
        "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
    }
    return Feedback(
        id=new_id(),
        ts=NOW,
        tenant="default",
        target="invocation",
        target_id=target,
        name="demonstration",
        value={"role": "assistant", "tool_calls": [call]},
    )


def intake(origin: str, **changes: Any) -> Intake:
    """An import into tenant ``default``, at ``NOW``."""
    return Intake(
        **{
            "origin": origin,
            "tenant": "default",
            "at": NOW,
            "subject": SubjectKey(b"k" * 32).of,
            "episode": episode_of,
        }
        | changes
    )
