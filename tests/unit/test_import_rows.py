import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRow
from gateway.log import rows
from gateway.log.import_ import bedrock, litellm, nvidia, openai
from gateway.log.import_.run import NOT_A_ROW
from gateway.log.record import Feedback, Invocation, decode, encode
from tests.factories import NOW, intake

PROMPT = [{"role": "system", "content": "You help."}, {"role": "user", "content": "hi"}]
ANSWER = {"role": "assistant", "content": "hello", "weight": 1}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {}}}]


def tuned(row: Any) -> tuple[Invocation, Feedback]:
    return openai.records(json.dumps(row).encode(), intake("openai", alias="helpdesk"))


def test_an_sft_row_is_a_prompt_and_the_demonstration_that_ended_it() -> None:
    call, feedback = tuned({"messages": [*PROMPT, ANSWER], "tools": TOOLS, "seed": 1})

    assert json.loads(bytes(call.request)) == {"messages": PROMPT, "tools": TOOLS, "seed": 1}
    assert bytes(call.response) == b"null"
    assert call.request_model == call.task == "helpdesk"
    assert (feedback.name, feedback.value) == ("demonstration", ANSWER)
    assert (feedback.target, feedback.target_id) == ("invocation", call.id)


def test_a_dpo_row_is_a_prompt_and_a_preference() -> None:
    asked = {"messages": PROMPT, "tools": TOOLS, "parallel_tool_calls": True}
    good, bad = [ANSWER], [{"role": "assistant", "content": "go away"}]

    call, feedback = tuned({"input": asked, "preferred_output": good, "non_preferred_output": bad})

    assert json.loads(bytes(call.request)) == asked
    assert (feedback.name, feedback.value) == ("preference", {"preferred": good, "rejected": bad})


def test_an_rft_row_is_a_prompt_and_a_reference_with_all_that_its_graders_read() -> None:
    row = {"messages": PROMPT, "tools": TOOLS, "reference_answer": {"order": 7}, "level": "hard"}

    call, feedback = tuned(row)

    assert json.loads(bytes(call.request)) == {"messages": PROMPT, "tools": TOOLS}
    assert feedback.name == "reference"
    assert feedback.value == {"reference_answer": {"order": 7}, "level": "hard"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "object"),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "role"),
        ({"messages": [ANSWER]}, "nothing before"),
        ({"messages": [*PROMPT, ANSWER], "reference_answer": 1}, "reference_answer"),
        ({"input": {"messages": PROMPT}, "preferred_output": [ANSWER]}, "non_preferred_output"),
        ({"input": PROMPT, "preferred_output": [], "non_preferred_output": []}, "input"),
        (
            {
                "input": {"messages": PROMPT},
                "preferred_output": [ANSWER],
                "non_preferred_output": [ANSWER],
                "score": 1,
            },
            "score",
        ),
    ],
)
def test_what_is_no_row_of_openais_is_rejected(row: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        tuned(row)


def test_the_same_row_written_differently_is_the_same_row() -> None:
    row = {"messages": [*PROMPT, ANSWER], "tools": TOOLS}
    into = intake("openai")

    one = openai.records(json.dumps(row, indent=2).encode(), into)
    two = openai.records(json.dumps(dict(reversed(row.items()))).encode(), into)
    other = openai.records(json.dumps(row | {"seed": 1}).encode(), into)

    assert [record.id for record in one] == [record.id for record in two]
    assert not {record.id for record in one} & {record.id for record in other}
    assert one[0].ts == into.at


FLYWHEEL = {
    "timestamp": 1715854074,
    "workload_id": "tool_router",
    "client_id": "dev",
    "request": {
        "model": "meta/llama-3.1-70b-instruct",
        "messages": PROMPT,
        "metadata": {"plan": "gold"},
        "user": "ann",
    },
    "response": {
        "id": "run-1",
        "model": "meta/llama-3.1-70b-instruct",
        "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
    },
}


def flywheel(row: dict[str, Any]) -> Invocation:
    (record,) = nvidia.records(json.dumps(row).encode(), intake("nvidia"))
    return record


def test_a_flywheel_row_is_an_invocation_of_its_workload() -> None:
    record = flywheel(FLYWHEEL)

    assert record.task == "tool_router"
    assert record.request_model == "meta/llama-3.1-70b-instruct"
    assert record.ts.timestamp() == 1715854074
    assert record.tags == {"plan": "gold", "nvidia.client_id": "dev"}
    assert record.subject_id is not None
    assert json.loads(bytes(record.request)) == FLYWHEEL["request"]
    assert json.loads(bytes(record.response)) == FLYWHEEL["response"]


@pytest.mark.parametrize(
    "changes",
    [
        {"workload_id": ""},
        {"timestamp": None},
        {"timestamp": "soon"},
        {"timestamp": -5},
        {"timestamp": 1e300},
        {"request": []},
        {"response": "text"},
        {"score": 1},
    ],
)
def test_what_is_no_flywheel_row_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises((BadRow, msgspec.ValidationError)):
        flywheel(FLYWHEEL | changes)


def test_what_must_not_be_stored_must_not_be_learnt_from() -> None:
    record = flywheel(FLYWHEEL | {"request": {"messages": PROMPT, "store": False}})

    assert not record.train_ok


SPEND = {
    "request_id": "chatcmpl-81f",
    "call_type": "acompletion",
    "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
    "spend": 0.0021,
    "total_tokens": 30,
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "startTime": "2026-05-01T12:00:00.000Z",
    "endTime": "2026-05-01T12:00:02.500Z",
    "completionStartTime": "2026-05-01T12:00:00.400Z",
    "model": "gpt-4o-2024-08-06",
    "model_id": "abc",
    "model_group": "gpt-4o",
    "custom_llm_provider": "openai",
    "api_base": "https://api.openai.com",
    "user": "default_user_id",
    "metadata": {"user_api_key_alias": "app", "requester_metadata": {"plan": "gold"}},
    "cache_hit": "False",
    "cache_key": "off",
    "request_tags": '["prod", "job:7"]',
    "team_id": "support",
    "end_user": "ann",
    "requester_ip_address": "10.0.0.1",
    "messages": PROMPT,
    "response": {"id": "chatcmpl-81f", "choices": [{"message": ANSWER, "finish_reason": "stop"}]},
    "session_id": "s-1",
    "status": "success",
    "proxy_server_request": {},
}


def spent(**changes: Any) -> Invocation:
    (record,) = litellm.records(json.dumps(SPEND | changes).encode(), intake("litellm"))
    return record


def test_a_spend_log_is_an_invocation_with_its_cost() -> None:
    record = spent()

    assert (record.request_model, record.response_model) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (record.input_tokens, record.output_tokens, record.cost) == (20, 10, 0.0021)
    assert (record.duration, record.time_to_first_chunk) == (2.5, 0.4)
    assert (record.status, record.error_type, record.provider_name) == (200, None, "openai")
    assert record.conversation_id == "s-1"
    assert record.tags == {"plan": "gold", "prod": "true", "job": "7", "team_id": "support"}
    assert record.subject_id == intake("litellm").subject("default", "ann")
    assert json.loads(bytes(record.request)) == {"model": "gpt-4o", "messages": PROMPT}
    assert json.loads(bytes(record.response)) == SPEND["response"]


def test_a_dump_holds_json_columns_as_text_and_times_without_a_zone() -> None:
    text = {
        name: json.dumps(SPEND[name])
        for name in ("metadata", "messages", "response", "proxy_server_request")
    }

    record = spent(startTime="2026-05-01 12:00:00", **text)

    assert record.ts == spent().ts
    assert bytes(record.request) == bytes(spent().request)
    assert bytes(record.response) == bytes(spent().response)


def test_the_clients_own_body_is_preferred_to_its_messages() -> None:
    body = {"model": "gpt-4o", "messages": PROMPT, "temperature": 0, "stream": True}

    bare = spent(proxy_server_request=body, messages={})
    wrapped = spent(proxy_server_request={"url": "http://x", "body": body})

    assert json.loads(bytes(bare.request)) == json.loads(bytes(wrapped.request)) == body
    assert bare.stream


def test_a_row_without_bodies_is_kept_for_the_bill() -> None:
    record = spent(messages="{}", response="{}", proxy_server_request="{}")

    assert bytes(record.request) == bytes(record.response) == b"null"
    assert record.cost == 0.0021


def test_a_failed_call_says_how() -> None:
    metadata = {
        "status": "failure",
        "error_information": {"error_code": "429", "error_class": "RateLimitError"},
    }

    record = spent(status="failure", metadata=metadata, response={})

    assert (record.status, record.error_type) == (429, "RateLimitError")


def test_an_answer_that_did_not_stream_has_no_first_chunk() -> None:
    record = spent(completionStartTime=SPEND["endTime"])

    assert record.time_to_first_chunk is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"call_type": "aembedding"}, "aembedding"),
        ({"startTime": "x"}, "no time"),
        (
            {"messages": [{"role": "user", "content": "a... (litellm_truncated 9 chars) ...b"}]},
            "cut",
        ),
    ],
)
def test_other_calls_and_cut_bodies_are_rejected(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        spent(**changes)


CONVERSED = {
    "timestamp": "2026-04-17T14:21:50Z",
    "requestId": "r",
    "operation": "Converse",
    "modelId": "m",
    "requestMetadata": {"task": "refund"},
    "input": {
        "inputBodyJson": {
            "system": [{"text": "You help."}],
            "messages": [
                {"role": "user", "content": [{"text": "hi"}]},
                {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}}],
                },
                {
                    "role": "user",
                    "content": [{"toolResult": {"toolUseId": "t", "content": [{"json": 1}]}}],
                },
            ],
            "inferenceConfig": {"maxTokens": 5},
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]},
        },
        "inputTokenCount": 3,
    },
    "output": {
        "outputBodyJson": {
            "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
            "stopReason": "end_turn",
            "metrics": {"latencyMs": 1},
            "usage": {"inputTokens": 3, "outputTokens": 1},
        }
    },
}
STREAMED = CONVERSED | {
    "operation": "InvokeModelWithResponseStream",
    "input": {
        "inputBodyJson": {
            "anthropic_version": "v",
            "system": "You help.",
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}],
                },
            ],
            "tools": [{"name": "f", "input_schema": {}}],
            "tool_choice": {"type": "any"},
        }
    },
    "output": {
        "outputBodyJson": [
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {"type": "content_block_delta", "index": 0, "delta": {"text": "x"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
            {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"invocationLatency": 1}},
        ]
    },
}
SHAPES = {
    "bedrock": (bedrock.records, [CONVERSED, STREAMED]),
    "openai": (openai.records, [{"messages": [*PROMPT, ANSWER], "tools": TOOLS}]),
    "nvidia": (nvidia.records, [FLYWHEEL]),
    "litellm": (litellm.records, [SPEND]),
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


def broken(value: Any, draw: Any) -> Any:
    """The value with something else in one place of it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: broken(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], broken(value[at], draw), *value[at + 1 :]]
    return draw(ANYTHING)


@pytest.mark.parametrize("name", SHAPES)
@settings(deadline=None)
@given(data=st.data())
def test_a_row_that_is_odd_anywhere_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    convert, examples = SHAPES[name]
    row = broken(data.draw(st.sampled_from(examples)), data.draw)
    try:
        records = convert(json.dumps(row).encode(), intake(name))
    except NOT_A_ROW:
        return

    for record in records:
        assert decode(encode(record)[:-1]) == record
        if isinstance(record, Invocation):
            rows.table([rows.invocation(record, NOW, {})], rows.INVOCATIONS)
