from typing import Any
from uuid import UUID

import pytest

from gateway.context import Context, context
from gateway.errors import InvalidRequest
from gateway.keys import Key
from gateway.log.subject import SubjectKey, episode_of
from tests.factories import parsed

ID = UUID("01a1f951-32aa-7714-a187-b9e4ad3742e3")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SUBJECTS = SubjectKey(bytes(32))
KEY = Key("key_1", "k", "acme")


def of(headers: dict[str, str] | None = None, **fields: Any) -> Context:
    sent = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    return context(sent, parsed(**fields), invocation_id=ID, key=KEY, subjects=SUBJECTS)


def test_a_call_that_says_nothing_is_an_episode_of_its_own_and_may_be_learnt_from() -> None:
    assert of() == Context(
        episode_id=ID,
        parent_id=None,
        conversation_id=None,
        trace_id=None,
        span_id=None,
        subject_id=None,
        train_ok=True,
    )


def test_the_episode_is_named_by_the_first_of_its_names() -> None:
    headers = {
        "x-ratchet-episode-id": "one",
        "x-portkey-trace-id": "three",
        "traceparent": f"00-{TRACE}-{SPAN}-01",
    }
    metadata = {"episode_id": "two"}
    wanted = [episode_of("acme", name) for name in ("one", "two", "three", TRACE)]

    found = [of(headers, metadata=metadata).episode_id]
    del headers["x-ratchet-episode-id"]
    found.append(of(headers, metadata=metadata).episode_id)
    found.append(of(headers).episode_id)
    del headers["x-portkey-trace-id"]
    found.append(of(headers).episode_id)

    assert found == wanted
    assert found[-1] == UUID(TRACE)


def test_the_parent_and_the_conversation_come_from_header_or_metadata() -> None:
    headers = {
        "x-ratchet-parent-id": f"chatcmpl-{ID.hex}",
        "x-ratchet-conversation-id": "chat é",
    }
    metadata = {"parent_id": str(ID), "conversation_id": "other"}

    by_header, by_metadata = of(headers, metadata=metadata), of(metadata=metadata)

    assert (by_header.parent_id, by_header.conversation_id) == (ID, "chat é")
    assert (by_metadata.parent_id, by_metadata.conversation_id) == (ID, "other")


def test_a_malformed_header_of_ours_is_refused_and_malformed_metadata_is_the_clients_own() -> None:
    with pytest.raises(InvalidRequest) as parent:
        of({"x-ratchet-parent-id": "row 7"})
    with pytest.raises(InvalidRequest) as conversation:
        of({"x-ratchet-conversation-id": "x" * 513})

    assert parent.value.param == "x-ratchet-parent-id"
    assert conversation.value.param == "x-ratchet-conversation-id"
    assert of(metadata={"parent_id": "row 7"}).parent_id is None


@pytest.mark.parametrize(
    "traceparent",
    [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-00-what-comes-later"],
)
def test_a_trace_is_kept(traceparent: str) -> None:
    found = of({"traceparent": traceparent})

    assert (found.trace_id, found.span_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01more",
    ],
)
def test_a_malformed_trace_is_ignored(traceparent: str) -> None:
    found = of({"traceparent": traceparent})

    assert (found.trace_id, found.span_id, found.episode_id) == (None, None, ID)


def test_the_subject_is_whom_the_call_is_made_for() -> None:
    assert of(user="ann").subject_id == SUBJECTS.of("acme", "ann")
    assert of(user="").subject_id is None
    assert of().subject_id is None


@pytest.mark.parametrize(
    ("headers", "fields", "train_ok"),
    [
        ({}, {"store": True}, True),
        ({"x-ratchet-train": "true"}, {"metadata": {"train_ok": "True"}}, True),
        ({}, {"store": False}, False),
        ({"x-ratchet-train": "true"}, {"store": False}, False),
        ({"x-ratchet-train": "false"}, {}, False),
        ({"x-ratchet-train": "no"}, {}, False),
        ({}, {"metadata": {"train_ok": "false"}}, False),
        ({"x-ratchet-train": "true"}, {"metadata": {"train_ok": "0"}}, False),
    ],
)
def test_whoever_says_no_is_not_learnt_from(
    headers: dict[str, str], fields: dict[str, Any], train_ok: bool
) -> None:
    assert of(headers, **fields).train_ok is train_ok


def test_of_a_key_that_does_not_train_nothing_is_learnt_from() -> None:
    silent = Key("key_2", "k", "acme", train=False)

    found = context({}, parsed(store=True), invocation_id=ID, key=silent, subjects=SUBJECTS)

    assert not found.train_ok
