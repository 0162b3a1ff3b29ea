import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion

from gateway.errors import InvalidRequest, NotFound
from gateway.log import rows
from gateway.log.completions import Completions, Window
from gateway.log.filter import MetadataFilter
from gateway.log.record import Edit, Invocation, new_id
from gateway.log.store import Store
from tests.factories import NOW, invocation

TENANT = "default"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def logged(store: Store, *calls: Invocation) -> None:
    table = rows.table([rows.invocation(one, NOW, {}) for one in calls], rows.INVOCATIONS)
    store.append({"invocations": table}, [], NOW)


def edited(store: Store, call: Invocation, **tags: str) -> None:
    edit = Edit(id=new_id(), ts=NOW, tenant=TENANT, invocation_id=call.id, tags=tags)
    store.append({"edits": rows.table([rows.edit(edit, NOW)], rows.EDITS)}, [], NOW)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def stored(**changes: Any) -> Invocation:
    return invocation(stored=True, **changes)


def name(call: Invocation) -> str:
    return f"chatcmpl-{call.id.hex}"


def listed(store: Store, **more: Any) -> list[str]:
    return [one["id"] for one in Completions(store, TENANT).page(Window(), **more).data]


def test_only_what_was_stored_and_answered_is_listed_to_its_tenant(store: Store) -> None:
    mine = stored()
    hidden = [
        invocation(),
        stored(tenant="other"),
        stored(status=400, error_type="invalid_request"),
        stored(error_type="client_closed"),
        stored(arm="shadow"),
        stored(operation_name="text_completion", request=raw({"prompt": "a"})),
        stored(request=raw({"input": "a"}), response=raw({"object": "response"})),
        stored(response=raw({"type": "message", "content": []})),
    ]
    logged(store, mine, *hidden)
    own = Completions(store, TENANT)

    assert listed(store) == [name(mine)]
    assert own.id_of(name(mine)) == mine.id
    for call in hidden:
        with pytest.raises(NotFound, match=name(call)):
            own.get(name(call))
    with pytest.raises(NotFound):
        own.get("chatcmpl-nothing")


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_put_together_are_the_list(store: Store, limit: int, descending: bool) -> None:
    calls = [stored() for _ in range(7)]
    logged(store, *calls)
    own = Completions(store, TENANT)
    seen: list[str] = []
    after = None

    while True:
        page = own.page(Window(after, limit, descending)).told()
        seen += [one["id"] for one in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break

    expected = [name(call) for call in calls]
    assert seen == (expected[::-1] if descending else expected)


def test_an_empty_list_has_no_ids(store: Store) -> None:
    told = Completions(store, TENANT).page(Window()).told()

    assert told == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_list_is_narrowed_by_model_and_by_metadata_as_last_edited(store: Store) -> None:
    red = stored(tags={"color": "red", "n": "1"})
    blue = stored(tags={"color": "blue"}, request_model="sales")
    turned = stored(tags={"color": "blue"})
    logged(store, red, blue, turned)
    edited(store, turned, color="green")
    edited(store, turned, color="red")

    def of(**pairs: str) -> list[str]:
        return listed(store, metadata=MetadataFilter.model_validate(pairs))

    assert of(color="red") == [name(red), name(turned)]
    assert of(color="red", n="1") == [name(red)]
    assert of(color="green") == []
    assert listed(store, model="sales") == [name(blue)]
    assert listed(store, model="base") == [name(red), name(blue), name(turned)]


def test_a_stored_completion_repeats_its_request_and_shows_its_metadata(store: Store) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    request = {
        "model": "helpdesk",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "seed": 7,
        "tools": tools,
        "user": "ann",
    }
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "base",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "hello"},
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    call = stored(request=raw(request), response=raw(answer), tags={"a": "b"})
    logged(store, call)

    found = Completions(store, TENANT).get(name(call))

    parsed = ChatCompletion.model_validate(found)
    assert (parsed.id, parsed.created, parsed.model) == (name(call), 5, "base")
    assert parsed.choices[0].message.content == "hello"
    assert found["metadata"] == {"a": "b"}
    assert (found["temperature"], found["seed"], found["top_p"]) == (0.5, 7, None)
    assert (found["tools"], found["input_user"]) == (tools, "ann")


@pytest.mark.parametrize("asked", [True, False])
def test_what_was_captured_shows_only_to_who_asked_for_it(store: Store, asked: bool) -> None:
    answer = {
        "prompt_token_ids": [1],
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "hi"},
                "token_ids": [2],
                "logprobs": {"content": []},
            }
        ],
    }
    request = {"messages": [], "logprobs": asked, "return_token_ids": asked}
    call = stored(request=raw(request), response=raw(answer))
    logged(store, call)

    found = Completions(store, TENANT).get(name(call))

    choice = found["choices"][0]
    shown = [found["prompt_token_ids"], choice["token_ids"], choice["logprobs"]]
    assert shown == ([[1], [2], {"content": []}] if asked else [None, None, None])


def test_messages_have_ids_and_pages(store: Store) -> None:
    parts = [{"type": "text", "text": "look"}]
    said = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]
    call = stored(request=raw({"model": "helpdesk", "messages": said}))
    logged(store, call)
    own = Completions(store, TENANT)

    first = own.messages(name(call), Window(limit=2)).told()
    rest = own.messages(name(call), Window(first["last_id"])).told()
    newest = own.messages(name(call), Window(limit=1, descending=True)).told()

    system, user = first["data"]
    assert (system["id"], system["content"]) == (f"{name(call)}-0", "be brief")
    assert (user["content"], user["content_parts"]) == (None, parts)
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [one["tool_call_id"] for one in rest["data"]] == ["c"]
    assert newest["data"] == rest["data"]


def test_a_cursor_that_is_none_is_refused_by_its_name(store: Store) -> None:
    call = stored()
    logged(store, call)
    own = Completions(store, TENANT)

    with pytest.raises(InvalidRequest) as wrong:
        own.page(Window("nothing"))
    with pytest.raises(InvalidRequest) as unknown:
        own.messages(name(call), Window("nothing"))

    assert wrong.value.param == unknown.value.param == "after"


def test_a_number_that_no_float_holds_does_not_hide_the_list(store: Store) -> None:
    request = msgspec.Raw(b'{"messages":[{"role":"user","content":"hi"}],"temperature":1e400}')
    odd, plain = stored(request=request), stored()
    logged(store, odd, plain)

    found = Completions(store, TENANT).get(name(odd))

    assert listed(store) == [name(odd), name(plain)]
    assert found["temperature"] is None
    assert json.dumps(found, allow_nan=False)
