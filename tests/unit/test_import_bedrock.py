import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from gateway.errors import BadRow
from gateway.log.import_ import bedrock
from gateway.log.record import Invocation
from tests.factories import intake

METRICS = {
    "inputTokenCount": 21,
    "outputTokenCount": 9,
    "invocationLatency": 1400,
    "firstByteLatency": 350,
}


def logged(operation: str, asked: Any, answered: Any, **changes: Any) -> dict[str, Any]:
    """One record as Bedrock writes it."""
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2026-04-17T14:21:50Z",
        "accountId": "123456789012",
        "identity": {"arn": "arn:aws:sts::123456789012:assumed-role/app/session"},
        "region": "us-east-1",
        "requestId": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "operation": operation,
        "modelId": "some.model-v1:0",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": asked,
            "inputTokenCount": 21,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": answered,
            "outputTokenCount": 9,
        },
    } | changes


def imported(row: dict[str, Any], **into: Any) -> Invocation:
    (record,) = bedrock.records(json.dumps(row).encode(), intake("bedrock", **into))
    return record


def bodies(row: dict[str, Any]) -> tuple[Any, Any]:
    record = imported(row)
    return json.loads(bytes(record.request)), json.loads(bytes(record.response))


CONVERSE = {
    "system": [{"text": "You help."}, {"cachePoint": {"type": "default"}}],
    "messages": [
        {"role": "user", "content": [{"text": "Where is order 7?"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "look", "signature": "x"}}},
                {"text": "Let me look."},
                {"toolUse": {"toolUseId": "t1", "name": "find", "input": {"order": 7}}},
                {"toolUse": {"toolUseId": "t2", "name": "carrier", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"json": {"at": "depot"}}]}},
                {
                    "toolResult": {
                        "toolUseId": "t2",
                        "content": [{"text": "DHL"}],
                        "status": "success",
                    }
                },
                {"text": "Quick!"},
            ],
        },
    ],
    "inferenceConfig": {"maxTokens": 64, "temperature": 0.2, "topP": 0.9, "stopSequences": ["END"]},
    "toolConfig": {
        "tools": [
            {
                "toolSpec": {
                    "name": "find",
                    "description": "Finds an order",
                    "inputSchema": {"json": {"type": "object"}},
                    "strict": True,
                }
            }
        ],
        "toolChoice": {"tool": {"name": "find"}},
    },
    "additionalModelRequestFields": {"top_k": 20},
}

CHAT = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "Where is order 7?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {
                "id": "t1",
                "type": "function",
                "function": {"name": "find", "arguments": '{"order":7}'},
            },
            {"id": "t2", "type": "function", "function": {"name": "carrier", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "t1", "content": '{"at":"depot"}'},
    {"role": "tool", "tool_call_id": "t2", "content": "DHL"},
    {"role": "user", "content": "Quick!"},
]


def said(*blocks: Any, stop: str = "end_turn") -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": list(blocks)}},
        "stopReason": stop,
        "metrics": {"latencyMs": 1400},
        "usage": {
            "inputTokens": 20,
            "outputTokens": 9,
            "totalTokens": 129,
            "cacheReadInputTokens": 90,
            "cacheWriteInputTokens": 10,
        },
    }


def test_a_converse_request_becomes_a_chat_completion_request() -> None:
    request, _ = bodies(logged("Converse", CONVERSE, said({"text": "At the depot."})))

    assert request == {
        "model": "some.model-v1:0",
        "messages": CHAT,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "find",
                    "description": "Finds an order",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "find"}},
        "max_tokens": 64,
        "temperature": 0.2,
        "top_p": 0.9,
        "stop": ["END"],
        "top_k": 20,
    }


def test_a_converse_answer_keeps_its_reasoning_calls_and_counts() -> None:
    answer = said(
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        {"text": "I look."},
        {"toolUse": {"toolUseId": "t9", "name": "find", "input": {"order": 8}}},
        stop="tool_use",
    )

    _, response = bodies(logged("Converse", CONVERSE, answer))

    call = {"name": "find", "arguments": '{"order":8}'}
    assert response["choices"] == [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": "hm",
                "tool_calls": [{"id": "t9", "type": "function", "function": call}],
            },
        }
    ]
    assert response["usage"] == {
        "prompt_tokens": 120,  # what the cache took and gave is input, too
        "completion_tokens": 9,
        "total_tokens": 129,
        "prompt_tokens_details": {"cached_tokens": 90},
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
def test_reasons_to_stop_have_openais_names(theirs: str, ours: str) -> None:
    _, response = bodies(logged("Converse", CONVERSE, said({"text": "x"}, stop=theirs)))

    assert response["choices"][0]["finish_reason"] == ours


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (logged("Converse", CONVERSE, said(stop="malformed_tool_use")), "malformed_tool_use"),
        (logged("Converse", CONVERSE, said(stop="bored")), "bored"),
        (logged("Converse", CONVERSE, None), "missing"),
        (logged("StartAsyncInvoke", {}, {}), "StartAsyncInvoke"),
        (logged("InvokeModel", {"inputText": "x"}, {"embedding": [0.1]}), "inputText"),
        (logged("Converse", None, None), "missing"),
        (logged("Converse", CONVERSE, said(), timestamp="yesterday"), "yesterday"),
        (
            logged(
                "Converse",
                {"messages": [{"role": "user", "content": [{"video": {"format": "mp4"}}]}]},
                said(),
            ),
            "video",
        ),
        (
            logged("Converse", CONVERSE, None, output={"outputBodyS3Path": "s3://b/data/1.json"}),
            "s3://b/data/1.json",
        ),
        (
            logged("Converse", None, said(), input={"inputBodyS3Path": "s3://b/data/2.json"}),
            "s3://b/data/2.json",
        ),
    ],
)
def test_what_holds_no_whole_call_is_rejected_with_its_reason(
    row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadRow, match=reason):
        imported(row)


def test_the_events_of_a_converse_stream_add_up_to_its_answer() -> None:
    events = [
        {"messageStart": {"role": "assistant"}},
        {
            "contentBlockDelta": {
                "contentBlockIndex": 0,
                "delta": {"reasoningContent": {"text": "h"}},
            }
        },
        {
            "contentBlockDelta": {
                "contentBlockIndex": 0,
                "delta": {"reasoningContent": {"text": "m"}},
            }
        },
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "At "}}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "home"}}},
        {
            "contentBlockStart": {
                "contentBlockIndex": 2,
                "start": {"toolUse": {"toolUseId": "t1", "name": "find"}},
            }
        },
        {
            "contentBlockDelta": {
                "contentBlockIndex": 2,
                "delta": {"toolUse": {"input": '{"order"'}},
            }
        },
        {"contentBlockDelta": {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ":7}"}}}},
        {"messageStop": {"stopReason": "tool_use"}},
        {
            "metadata": {
                "usage": {"inputTokens": 20, "outputTokens": 9},
                "metrics": {"latencyMs": 1400},
            }
        },
    ]

    record = imported(logged("ConverseStream", CONVERSE, events))

    choice = json.loads(bytes(record.response))["choices"][0]
    assert choice["message"]["content"] == "At home"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"order":7}'
    assert choice["finish_reason"] == "tool_calls"
    assert (record.stream, record.duration) == (True, 1.4)


ANTHROPIC = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "You help."}],
    "messages": [
        {"role": "user", "content": "Where is order 7?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "look", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "t1", "name": "find", "input": {"order": 7}},
                {"type": "tool_use", "id": "t2", "name": "carrier", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": '{"at":"depot"}'},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "DHL"}],
                },
                {"type": "text", "text": "Quick!"},
            ],
        },
    ],
    "tools": [{"name": "find", "description": "Finds", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "ann"},
}


def test_an_anthropic_body_of_invoke_model_becomes_the_same_chat() -> None:
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "At the depot."},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 9},
    }

    request, response = bodies(logged("InvokeModel", ANTHROPIC, answer))

    assert request["messages"] == CHAT
    assert (request["tool_choice"], request["parallel_tool_calls"]) == ("required", False)
    assert (request["max_tokens"], request["stop"]) == (64, ["END"])
    assert request["tools"][0]["function"]["parameters"] == {"type": "object"}
    message = response["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("At the depot.", "hm")
    assert response["usage"]["prompt_tokens"] == 120
    assert response["id"] == "msg_1"


def test_the_chunks_of_an_anthropic_stream_add_up_to_its_answer() -> None:
    chunks = [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "role": "assistant",
                "content": [],
                "usage": {"input_tokens": 20, "output_tokens": 1},
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "hm"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": "x"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I "}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "text_delta", "text": "look"},
        },
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "t9", "name": "find", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"order"'},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": ": 8}"},
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": METRICS},
    ]

    record = imported(logged("InvokeModelWithResponseStream", ANTHROPIC, chunks))

    response = json.loads(bytes(record.response))
    message = response["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("I look", "hm")
    assert message["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"order": 8}'}
    assert response["choices"][0]["finish_reason"] == "tool_calls"
    assert response["usage"]["completion_tokens"] == 9
    assert (record.duration, record.time_to_first_chunk) == (1.4, 0.35)


def test_a_stream_that_broke_off_with_an_error_is_rejected() -> None:
    chunks = [{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]

    with pytest.raises(BadRow, match="Overloaded"):
        imported(logged("InvokeModelWithResponseStream", ANTHROPIC, chunks))


def test_an_anthropic_stream_cut_before_its_end_has_no_finish_reason() -> None:
    chunks = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 20}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I"}},
    ]

    _, response = bodies(logged("InvokeModelWithResponseStream", ANTHROPIC, chunks))

    assert response["choices"][0]["message"]["content"] == "I"
    assert response["choices"][0]["finish_reason"] is None


def test_amazon_nova_speaks_converse_through_invoke_model() -> None:
    asked = {
        "schemaVersion": "messages-v1",
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"max_new_tokens": 5},
    }

    request, response = bodies(logged("InvokeModel", asked, said({"text": "hello"})))

    assert request["messages"] == [{"role": "user", "content": "hi"}]
    assert request["max_tokens"] == 5
    assert response["choices"][0]["message"]["content"] == "hello"


def test_llamas_text_is_one_user_message() -> None:
    asked = {"prompt": "<|begin_of_text|>hi", "max_gen_len": 8, "temperature": 0.1}
    answer = {
        "generation": "hello",
        "prompt_token_count": 3,
        "generation_token_count": 1,
        "stop_reason": "length",
    }

    record = imported(logged("InvokeModel", asked, answer))

    request, response = json.loads(bytes(record.request)), json.loads(bytes(record.response))
    assert record.operation_name == "text_completion"
    assert request["messages"] == [{"role": "user", "content": "<|begin_of_text|>hi"}]
    assert request["max_tokens"] == 8
    assert response["choices"][0]["finish_reason"] == "length"
    assert response["usage"]["total_tokens"] == 4


def test_mistrals_streamed_text_is_joined_and_counted_by_bedrock() -> None:
    chunks = [
        {"outputs": [{"text": "hel", "stop_reason": None}]},
        {
            "outputs": [{"text": "lo", "stop_reason": "stop"}],
            "amazon-bedrock-invocationMetrics": METRICS,
        },
    ]

    record = imported(logged("InvokeModelWithResponseStream", {"prompt": "<s>[INST]hi"}, chunks))

    choice = json.loads(bytes(record.response))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")
    assert (record.input_tokens, record.output_tokens) == (21, 9)


def test_chat_completions_through_invoke_model_stay_what_they_are() -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 5}
    chunks = [
        {"id": "c1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "he"}}]},
        {"id": "c1", "choices": [{"index": 0, "delta": {"content": "y"}, "finish_reason": "stop"}]},
    ]

    request, response = bodies(logged("InvokeModelWithResponseStream", asked, chunks))

    assert request == {"model": "some.model-v1:0", **asked}
    assert response["choices"][0]["message"]["content"] == "hey"
    assert response["choices"][0]["finish_reason"] == "stop"


def test_a_body_logged_as_text_is_read() -> None:
    row = logged("Converse", json.dumps(CONVERSE), json.dumps(said({"text": "x"})))

    request, response = bodies(row)

    assert request["messages"] == CHAT
    assert response["choices"][0]["message"]["content"] == "x"


def test_a_failed_call_is_kept_with_its_error() -> None:
    row = logged("Converse", CONVERSE, None, errorCode="ThrottlingException")

    record = imported(row)

    assert (record.status, record.error_type) == (429, "ThrottlingException")
    assert bytes(record.response) == b"null"


def test_request_metadata_means_what_metadata_means_to_the_gateway() -> None:
    metadata = {"task": "refund", "episode_id": "chat-1", "user": "ann", "train_ok": "false"}

    record = imported(logged("Converse", CONVERSE, said(), requestMetadata=metadata))
    other = imported(logged("InvokeModel", ANTHROPIC, {"content": []}))

    assert record.task == "refund"
    assert record.tags == metadata
    assert record.episode_id == intake("bedrock").episode("default", "chat-1")
    assert not record.train_ok
    assert json.loads(bytes(record.request))["metadata"] == metadata
    assert record.subject_id is not None
    assert record.subject_id == other.subject_id  # Anthropic's metadata.user_id


def test_the_operator_may_name_alias_and_task_and_refuse_training() -> None:
    row = logged("Converse", CONVERSE, said(), requestMetadata={"task": "refund"})

    record = imported(row, alias="helpdesk", task="orders", train_ok=False)

    assert (record.request_model, record.task) == ("helpdesk", "orders")
    assert record.response_model == "some.model-v1:0"
    assert json.loads(bytes(record.request))["model"] == "helpdesk"
    assert not record.train_ok


def test_the_id_is_a_uuid7_of_the_rows_time_and_its_request() -> None:
    row = logged("Converse", CONVERSE, said())

    first = imported(row)
    again = imported(row, at=datetime(2027, 1, 1, tzinfo=UTC))
    elsewhere = imported(row, tenant="other")
    other = imported(row | {"requestId": "b"})

    assert first.id == again.id
    assert len({first.id, elsewhere.id, other.id}) == 3
    assert (first.id.version, first.id.variant) == (7, UUID(int=0x8 << 60).variant)
    assert first.id.int >> 80 == int(first.ts.timestamp() * 1000)
    assert (first.origin, first.provider_name) == ("bedrock", "aws.bedrock")
