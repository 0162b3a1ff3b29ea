import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from gateway.log import rows
from gateway.log.answer import prompt_hash
from gateway.log.cost import Price
from gateway.log.record import Feedback, Invocation, decode, encode, new_id
from tests.factories import NOW, invocation


def row(record: Invocation, prices: dict[str, Price] | None = None) -> dict[str, Any]:
    """The row of a record that has been through the spool."""
    made = rows.invocation(decode(encode(record).rstrip(b"\n")), NOW, prices or {})  # type: ignore[arg-type]
    (as_dict,) = rows.table([made], rows.INVOCATIONS).to_pylist()
    return dict(as_dict)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def answer(**fields: Any) -> msgspec.Raw:
    return raw({"id": "c", "model": "m", "choices": [{"finish_reason": "stop"}]} | fields)


def stream(*events: Any) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def test_what_the_answer_tells_is_in_columns() -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    choices = [{"finish_reason": "stop"}, {"finish_reason": "length"}, {"finish_reason": None}]

    made = row(invocation(response=answer(usage=usage, choices=choices)))

    assert (made["response_id"], made["response_model"]) == ("c", "m")
    assert made["finish_reasons"] == ["stop", "length", ""]
    assert (made["input_tokens"], made["output_tokens"]) == (30, 20)
    assert (made["cache_read_input_tokens"], made["reasoning_output_tokens"]) == (10, 5)
    assert (made["origin"], made["error_type"], made["schema_version"]) == ("gateway", None, 1)


def test_what_the_record_brings_along_is_believed() -> None:
    brought = {
        "response_model": "theirs",
        "response_id": "their id",
        "finish_reasons": ["end_turn"],
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 0,
        "reasoning_output_tokens": 4,
        "cost": 0.5,
        "key_id": "key_1",
        "prompt_hash": "abc",
        "origin": "bedrock",
        "error_type": "throttled",
    }
    prices = {"helpdesk": Price(input=1, output=1)}

    made = row(
        invocation(response=answer(usage={"prompt_tokens": 9}, error="x"), **brought), prices
    )

    assert {name: made[name] for name in brought} == brought


def test_a_stream_has_the_columns_of_its_answer() -> None:
    events = [
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]

    made = row(invocation(response=msgspec.Raw(b"null"), sse=stream(*events)))

    assert made["finish_reasons"] == ["stop"]
    assert (made["input_tokens"], made["output_tokens"]) == (3, 2)
    assert json.loads(made["response"])["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    ("changes", "error_type"),
    [
        ({"sse": stream({"error": {"message": "oops"}})}, "engine_error"),
        ({"sse": stream({"error": {"message": "oops"}}), "error_type": "x"}, "x"),
        ({"sse": stream({"error": None, "choices": []})}, None),
        ({"response": raw({"error": {"message": "bad"}}), "status": 400}, None),
    ],
)
def test_an_error_inside_a_stream_is_the_engines(
    changes: dict[str, Any], error_type: str | None
) -> None:
    assert row(invocation(**changes))["error_type"] == error_type


RESPONSES = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
}
MESSAGES = {
    "input_tokens": 18,
    "cache_read_input_tokens": 10,
    "cache_creation_input_tokens": 2,
    "output_tokens": 20,
}


@pytest.mark.parametrize(
    ("body", "tokens", "finish_reasons"),
    [
        (
            {"object": "response", "status": "completed", "usage": RESPONSES},
            (30, 20, 10, 5),
            ["completed"],
        ),
        (
            {
                "object": "response",
                "status": "incomplete",
                "incomplete_details": {"reason": "max_output_tokens"},
                "usage": RESPONSES | {"input_tokens_details": None, "output_tokens_details": None},
            },
            (30, 20, None, None),
            ["max_output_tokens"],
        ),
        (
            {"type": "message", "stop_reason": "end_turn", "usage": MESSAGES},
            (30, 20, 10, None),
            ["end_turn"],
        ),
        (
            {"object": "text_completion", "choices": [{"text": "a", "finish_reason": "length"}]},
            (None, None, None, None),
            ["length"],
        ),
        (
            {"object": "list", "data": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}},
            (9, 0, None, None),
            None,
        ),
    ],
    ids=["response", "response cut short", "message", "text completion", "embeddings"],
)
def test_the_answer_of_every_surface_has_its_tokens_in_columns(
    body: dict[str, Any], tokens: tuple[int | None, ...], finish_reasons: list[str] | None
) -> None:
    made = row(invocation(response=raw({"id": "a", "model": "m"} | body)))

    assert (
        made["input_tokens"],
        made["output_tokens"],
        made["cache_read_input_tokens"],
        made["reasoning_output_tokens"],
    ) == tokens
    assert made["finish_reasons"] == finish_reasons
    assert (made["response_id"], made["response_model"]) == ("a", "m")


def test_of_several_usages_of_a_stream_the_last_one_counts_also_when_it_was_cut() -> None:
    events = [
        {
            "id": "c",
            "choices": [{"index": 0, "delta": {"content": "a"}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": n},
        }
        for n in (1, 2, 3)
    ]
    cut = stream(*events).removesuffix("data: [DONE]\n\n") + 'data: {"choices":[],"usage":{"pro'

    made = row(invocation(response=msgspec.Raw(b"null"), sse=cut))

    assert (made["input_tokens"], made["output_tokens"]) == (7, 3)
    assert made["finish_reasons"] == [""]


@pytest.mark.parametrize("vector", [[0.1] * 8, "AACAPwAAAEA="])
def test_the_vectors_of_an_embeddings_call_are_not_kept(vector: Any) -> None:
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(2)]
    answered = raw({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 4}})

    made = row(invocation(operation_name="embeddings", response=answered))

    assert json.loads(made["response"]) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}, {"object": "embedding", "index": 1}],
        "model": "m",
        "usage": {"prompt_tokens": 4},
    }
    assert made["input_tokens"] == 4


@pytest.mark.parametrize("odd", [raw({"error": {"message": "x"}}), raw({"data": [1]}), raw("no")])
def test_an_embeddings_answer_without_vectors_is_kept_as_it_is(odd: msgspec.Raw) -> None:
    made = row(invocation(operation_name="embeddings", response=odd))

    assert made["response"] == bytes(odd).decode()


def test_only_the_prompt_of_a_chat_completion_has_a_hash() -> None:
    others = [
        {"operation_name": "text_completion"},
        {"response": raw({"type": "message", "content": []})},
        {"response": raw({"type": "error", "error": {"message": "no"}})},
    ]

    assert row(invocation())["prompt_hash"]
    assert [row(invocation(**other))["prompt_hash"] for other in others] == [None] * 3


def test_bodies_are_stored_byte_for_byte() -> None:
    text = '{ "messages" :[{"role":"user","content":"\\u00e9 é \\ud83d\\ude00 😀 1.0e+2"}],"n":1E2}'

    made = row(invocation(request=msgspec.Raw(text.encode()), response=msgspec.Raw(text.encode())))

    assert (made["request"], made["response"]) == (text, text)


def test_bodies_that_are_not_there_are_null() -> None:
    nothing = invocation(request=msgspec.Raw(b"null"), response=msgspec.Raw(b"null"), sse=None)

    made = row(nothing)

    assert (made["request"], made["response"], made["prompt_hash"]) == (None, None, None)
    assert (made["finish_reasons"], made["input_tokens"]) == (None, None)


@pytest.mark.parametrize(
    "odd",
    [
        answer(id=7),
        answer(usage="none"),
        answer(usage={"prompt_tokens": 1 << 40}),
        answer(choices={"finish_reason": "stop"}),
        raw([1, 2]),
        raw("text"),
    ],
)
def test_an_answer_of_an_odd_shape_is_kept_and_tells_what_it_can(odd: msgspec.Raw) -> None:
    made = row(invocation(response=odd))

    assert made["response"] == bytes(odd).decode()
    assert made["input_tokens"] is None
    if b'"model"' in bytes(odd):
        assert made["response_model"] == "m"


def test_the_price_is_that_of_the_alias_and_knows_cached_tokens() -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    prices = {"helpdesk": Price(input=2, output=8, cached_input=1)}

    made = row(invocation(response=answer(usage=usage)), prices)
    other = row(invocation(response=answer(usage=usage), request_model="other"), prices)
    unknown = row(invocation(response=answer()), prices)

    assert made["cost"] == pytest.approx((600 * 2 + 400 * 1 + 100 * 8) / 1e6)
    assert (other["cost"], unknown["cost"]) == (None, None)


def test_a_prompt_has_one_hash_however_it_is_written() -> None:
    request = {
        "messages": [
            {"role": "user", "content": "é😀\u2028\n\t\x7f/ \\", "n": [1, 1.5, 1e30, -0.0]}
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "temperature": 0.1,
    }
    texts = [
        json.dumps(request),
        json.dumps(request, ensure_ascii=False, indent=2),
        json.dumps({name: request[name] for name in reversed(request)}, sort_keys=True),
    ]

    hashes = {prompt_hash(text.encode()) for text in texts} | {prompt_hash(request)}

    assert len(hashes) == 1
    assert hashes != {prompt_hash(request | {"tools": []})}
    assert prompt_hash(request | {"temperature": 1}) in hashes


def test_no_tools_and_an_empty_list_of_tools_are_the_same_prompt() -> None:
    messages = [{"role": "user", "content": "a"}]

    hashes = {
        prompt_hash({"messages": messages}),
        prompt_hash({"messages": messages, "tools": None}),
        prompt_hash(json.dumps({"messages": messages, "tools": []}).encode()),
    }

    assert len(hashes) == 1
    assert None not in hashes


@pytest.mark.parametrize("request_", [b"null", b"[]", b'{"input": "x"}', b'{"messages": 1e999}'])
def test_what_is_no_prompt_has_no_hash(request_: bytes) -> None:
    assert prompt_hash(request_) is None


def test_half_a_surrogate_pair_has_no_hash() -> None:
    assert prompt_hash({"messages": ["\ud800"]}) is None


def test_deep_nesting_within_reason_is_a_row() -> None:
    deep = '{"messages":[' + "[" * 400 + "]" * 400 + "]}"

    assert row(invocation(request=msgspec.Raw(deep.encode())))["request"] == deep


def test_bytes_that_are_no_text_are_refused() -> None:
    record = invocation(request=msgspec.Raw(b'{"messages":[],"x":"\xff"}'))

    with pytest.raises(UnicodeDecodeError):
        rows.invocation(record, NOW, {})


def test_feedback_keeps_its_value_as_json() -> None:
    said = Feedback(
        id=new_id(),
        ts=NOW,
        tenant="t",
        target="episode",
        target_id=new_id(),
        name="preference",
        value={"preferred": "a", "rejected": ["b"]},
        tags={"by": "me"},
    )

    (made,) = rows.table([rows.feedback(said, NOW)], rows.FEEDBACK).to_pylist()

    assert json.loads(made["value"]) == said.value
    assert (made["target_id"], made["tags"]) == (said.target_id, [("by", "me")])
    assert made["ts"] == datetime(2026, 9, 1, 12, 0)  # noqa: DTZ001


def test_an_empty_table_has_the_columns() -> None:
    assert rows.table([], rows.INVOCATIONS).num_rows == 0


def test_no_more_can_be_cached_than_was_read() -> None:
    assert Price(input=2, output=0, cached_input=1).of(10, 0, cached=20) == pytest.approx(10 / 1e6)


def test_metadata_is_a_map_and_none_is_null() -> None:
    made = [row(invocation(tags=tags))["tags"] for tags in ({"a": "b", "c": "d"}, {}, None)]

    assert made == [[("a", "b"), ("c", "d")], None, None]
