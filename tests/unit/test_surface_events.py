"""A stream's tokens are read from its events, and the client sees what it asked for."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded
from gateway.log.answer import CompletionDetails, PromptDetails, Usage
from gateway.settings import Capture
from gateway.surface import SURFACES, Events, Hidden
from gateway.surface.events import DONE, ChunkEvents, MessageEvents, ResponseEvents

ALL = Capture(token_ids=True, logprobs=True)
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}]}
CHAT = SURFACES["/v1/chat/completions"]
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def asked(capture: Capture = ALL, *, stream: bool = False, **fields: Any) -> tuple[Any, Hidden]:
    body = json.dumps({"model": "alias", "messages": [{}], "stream": stream} | fields).encode()
    sent, hidden = CHAT.rewritten(CHAT.parse(body), model="base", capture=capture)
    return json.loads(sent), hidden


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def named(name: str, **fields: Any) -> bytes:
    return f"event: {name}\n".encode() + event(type=name, **fields)


def choice(**fields: Any) -> dict[str, Any]:
    rest = {"finish_reason": None, "token_ids": [1], "logprobs": LOGPROBS}
    return {"index": 0, "delta": {"content": "a"}} | rest | fields


def usage(prompt: int, written: int, **fields: Any) -> dict[str, Any]:
    total = prompt + written
    counts = {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": written}
    return {"usage": counts | fields}


def fed(events: Events, *pieces: bytes) -> bytes:
    return b"".join(map(events.feed, pieces))


# What is asked of the engine.


def test_what_is_captured_is_asked_for_and_hidden_where_the_client_did_not_ask() -> None:
    sent, hidden = asked(logprobs=False, return_token_ids=None)
    plain, _ = asked(top_logprobs=0)
    own, shown = asked(logprobs=True, return_token_ids=True, top_logprobs=2)

    assert (sent["logprobs"], sent["return_token_ids"]) == (True, True)
    assert plain["logprobs"] is True
    assert hidden == Hidden(token_ids=True, logprobs=True)
    assert (own["logprobs"], own["return_token_ids"], own["top_logprobs"]) == (True, True, 2)
    assert shown == Hidden()


def test_top_logprobs_without_logprobs_stay_the_clients_mistake() -> None:
    sent, hidden = asked(top_logprobs=2)

    assert "logprobs" not in sent
    assert not hidden.logprobs


@pytest.mark.parametrize(
    ("options", "usage_hidden", "running_hidden"),
    [
        (None, True, True),
        ({}, True, True),
        ({"continuous_usage_stats": True}, True, True),
        ({"include_usage": True}, False, True),
        ({"include_usage": True, "continuous_usage_stats": False}, False, True),
        ({"include_usage": True, "continuous_usage_stats": True}, False, False),
    ],
)
def test_usage_of_a_stream_is_always_asked_for(
    options: Any, usage_hidden: bool, running_hidden: bool
) -> None:
    sent, hidden = asked(Capture(), stream=True, stream_options=options)

    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (hidden.usage, hidden.running_usage) == (usage_hidden, running_hidden)


def test_options_of_a_stream_that_is_none_stay_the_clients_mistake() -> None:
    sent, hidden = asked(Capture(), stream_options={"include_usage": True})

    assert sent["stream_options"] == {"include_usage": True}
    assert hidden == Hidden()


# What the client sees.

TEXTS = st.text() | st.sampled_from(
    ['"usage":{', ',"usage":{"a":1}', "data: [DONE]\n\n", '"choices":[]', "}{", "\n\n"]
)
COUNTS = st.integers(0, 99)


@st.composite
def chunks(draw: st.DrawFn) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Events as head and choices, usage, and what vLLM writes behind it."""
    details: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [
            {},
            {"completion_tokens_details": None},
            {"completion_tokens_details": {"reasoning_tokens": 3}},
            {"prompt_tokens_details": {"cached_tokens": 2, "multimodal_tokens": {"image": 1}}},
        ]
    )
    behind: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [{}, {"prompt_token_ids": None}, {"system_fingerprint": "fp"}]
    )
    return [
        (
            HEAD | {"choices": [choice(delta={"content": draw(TEXTS)})]},
            usage(draw(COUNTS), draw(COUNTS), **draw(details)),
            draw(behind),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


@given(chunks(), st.booleans(), st.lists(st.integers(0, 4000)))
def test_a_client_sees_byte_for_byte_what_it_would_have_got_however_the_stream_is_cut(
    told: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]],
    final: bool,
    cuts: list[int],
) -> None:
    last = event(**HEAD, choices=[], **usage(5, 7))
    stream = b"".join(event(**head, **used, **behind) for head, used, behind in told) + last + DONE
    plain = b"".join(event(**head, **behind) for head, _, behind in told)
    marks = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(marks)]

    events = ChunkEvents(Hidden(usage=not final, running_usage=True))
    seen = fed(events, *pieces)

    assert seen == plain + (last if final else b"") + DONE
    assert events.ended
    assert events.usage == Usage(prompt_tokens=5, completion_tokens=7)


def test_a_hidden_answer_is_the_one_the_client_would_have_got() -> None:
    message = {"role": "assistant", "content": "a"}
    whole = {"id": "c", "choices": [{"message": message, "token_ids": [1], "logprobs": LOGPROBS}]}
    payload = json.dumps(whole | {"prompt_token_ids": [2], "prompt_logprobs": None}).encode()

    neither = json.loads(Hidden(token_ids=True, logprobs=True).of_answer(payload))
    logprobs = json.loads(Hidden(token_ids=True).of_answer(payload))

    bare = {"message": message, "token_ids": None, "logprobs": None}
    rest = {"id": "c", "prompt_token_ids": None, "prompt_logprobs": None}
    assert neither == rest | {"choices": [bare]}
    assert logprobs == rest | {"choices": [bare | {"logprobs": LOGPROBS}]}
    assert Hidden().of_answer(payload) is payload


def test_a_hidden_stream_is_the_one_the_client_would_have_got() -> None:
    total = usage(3, 1)
    stream = [
        event(id="c", choices=[choice()], **total, prompt_token_ids=[2]),
        event(id="c", choices=[choice(delta={})], **total),
        event(id="c", choices=[choice(delta={}, finish_reason="stop")], **total),
        event(id="c", choices=[], **total),
        event(error={"message": "out of memory"}),
        b"data: {broken\n\n",
        DONE,
    ]

    seen = fed(ChunkEvents(Hidden(running_usage=True, token_ids=True, logprobs=True)), *stream)

    bare = {"token_ids": None, "logprobs": None}
    assert seen == b"".join(
        [
            event(id="c", choices=[choice(**bare)], prompt_token_ids=None),
            event(id="c", choices=[choice(delta={}, finish_reason="stop", **bare)]),
            event(id="c", choices=[], **total),
            event(error={"message": "out of memory"}),
            b"data: {broken\n\n",
            DONE,
        ]
    )


def test_an_event_without_text_stays_where_the_client_asked_for_its_logprobs() -> None:
    stream = event(choices=[choice(delta={})])

    seen = ChunkEvents(Hidden(token_ids=True)).feed(stream)

    assert seen == event(choices=[choice(delta={}, token_ids=None)])


def test_events_leave_only_whole() -> None:
    events = ChunkEvents(Hidden())

    first, second, third = (events.feed(p) for p in (b"data: a\n\ndata", b": b\n", b"\n"))

    assert (first, second, third) == (b"data: a\n\n", b"", b"data: b\n\n")


def test_usage_that_is_broken_off_by_the_engine_itself_holds_nothing_up() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True))

    assert events.feed(b'data: {"choices":[{}],"usage":{"prompt\n\n') == b'data: {"choices":[{}]'
    assert events.usage is None


def test_a_model_cannot_say_the_end_of_its_stream() -> None:
    events = ChunkEvents(Hidden())

    events.feed(event(choices=[choice(delta={"content": "data: [DONE]\n\n"})]))
    before = events.ended
    events.feed(DONE)

    assert (before, events.ended) == (False, True)


# What is read of tokens.


def test_a_cut_stream_has_told_its_tokens_so_far() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True))

    nothing = events.usage
    details = {"completion_tokens_details": {"reasoning_tokens": 1}}
    events.feed(event(**HEAD, choices=[choice()], **usage(9, 0)))
    events.feed(event(**HEAD, choices=[choice()], **usage(9, 2, **details)) + b'data: {"id')

    assert nothing is None
    assert events.usage == Usage(
        prompt_tokens=9, completion_tokens=2, completion_tokens_details=CompletionDetails(1)
    )
    assert not events.ended


def test_choices_of_a_cut_stream_are_added_up_and_their_prompt_counts_once() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True, choices=3))

    for index, written in ((0, 1), (1, 1), (0, 2), (2, 1), (1, 4)):
        events.feed(event(**HEAD, choices=[choice(index=index)], **usage(9, written)))

    assert events.usage == Usage(prompt_tokens=9, completion_tokens=2 + 4 + 1)


def test_the_thoughts_of_all_choices_of_a_cut_stream_are_added_up() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True, choices=2))

    for index, thought in ((0, 1), (1, 2), (0, 3)):
        details = {"completion_tokens_details": {"reasoning_tokens": thought}}
        events.feed(event(**HEAD, choices=[choice(index=index)], **usage(9, 4, **details)))

    assert events.usage == Usage(
        prompt_tokens=9, completion_tokens=8, completion_tokens_details=CompletionDetails(5)
    )


def test_prompts_of_a_cut_stream_count_each_once() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True, prompts=2, choices=4))

    for index, prompt in ((0, 5), (1, 5), (2, 7), (3, 7)):
        events.feed(event(**HEAD, choices=[choice(index=index)], **usage(prompt, 1)))

    assert events.usage == Usage(prompt_tokens=12, completion_tokens=4)


def test_the_last_event_counts_for_all_choices() -> None:
    events = ChunkEvents(Hidden(usage=True, running_usage=True, choices=2))

    events.feed(event(**HEAD, choices=[choice(index=1)], **usage(9, 3)))
    cached = {"prompt_tokens_details": {"cached_tokens": 8}}
    events.feed(event(**HEAD, choices=[], **usage(9, 6, **cached)))

    assert events.usage == Usage(
        prompt_tokens=9, completion_tokens=6, prompt_tokens_details=PromptDetails(8)
    )


MESSAGE = [
    named("message_start", message={"id": "c", "usage": {"input_tokens": 9, "output_tokens": 0}}),
    named("content_block_start", index=0),
    named("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "so"}),
    named("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
    named("content_block_delta", index=1, delta={"type": "text_delta", "text": "hi"}),
    named(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 7},
    ),
    named("message_stop"),
]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (0, None),
        (1, Usage(prompt_tokens=9, completion_tokens=0)),
        (5, Usage(prompt_tokens=9, completion_tokens=2)),
        (
            6,
            Usage(prompt_tokens=9, completion_tokens=7, prompt_tokens_details=PromptDetails(5)),
        ),
    ],
)
def test_a_cut_message_has_its_prompt_and_at_least_its_deltas(
    events: int, told: Usage | None
) -> None:
    stream = MessageEvents()

    seen = fed(stream, *MESSAGE[:events])

    assert seen == b"".join(MESSAGE[:events])
    assert stream.usage == told
    assert not stream.ended


def test_an_odd_message_tells_nothing() -> None:
    stream = MessageEvents()

    fed(stream, b'event: message_start\ndata: {"usage": 7}\n\n')

    assert stream.usage is None


@pytest.mark.parametrize("last", [MESSAGE[-1], named("error", error={"type": "internal_error"})])
def test_a_message_ends_with_its_last_event_or_an_error(last: bytes) -> None:
    stream = MessageEvents()

    fed(stream, *MESSAGE[:-1], last)

    assert stream.ended


SPENT = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2, "tool_output_tokens": 0},
    "total_tokens": 16,
}
RESPONSE = [
    named("response.created", response={"status": "in_progress", "usage": None}),
    named("response.in_progress", response={"status": "in_progress", "usage": None}),
    named("response.output_item.added"),
    named("response.output_text.delta", delta="event: response.completed\n"),
    named("response.output_text.delta", delta='"usage"'),
    named("response.output_text.done", text="hi"),
    named("response.completed", response={"status": "completed", "usage": SPENT}),
]


def test_a_response_tells_its_tokens_at_its_end() -> None:
    stream = ResponseEvents()

    seen = fed(stream, *RESPONSE)

    assert seen == b"".join(RESPONSE)
    assert stream.ended
    assert stream.usage == Usage(
        prompt_tokens=9,
        completion_tokens=7,
        prompt_tokens_details=PromptDetails(4),
        completion_tokens_details=CompletionDetails(2),
    )


def test_a_cut_response_counts_at_least_its_deltas() -> None:
    stream = ResponseEvents()

    fed(stream, *RESPONSE[:3])
    nothing = stream.usage
    fed(stream, *RESPONSE[3:-1])

    assert nothing is None
    assert stream.usage == Usage(completion_tokens=2)
    assert not stream.ended


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/chat/completions", usage(9, 7)["usage"]),
        ("/v1/completions", usage(9, 7, prompt_tokens_details=None)["usage"]),
        ("/v1/responses", SPENT),
        ("/v1/messages", {"input_tokens": 9, "output_tokens": 7}),
    ],
)
def test_a_whole_answer_tells_its_tokens(path: str, told: dict[str, Any]) -> None:
    found = SURFACES[path].usage(json.dumps({"id": "c", "usage": told}).encode())

    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens) == (9, 7)


def test_embeddings_write_nothing() -> None:
    told = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
    payload = json.dumps({"data": [], "usage": told}).encode()

    found = SURFACES["/v1/embeddings"].usage(payload)

    assert found == Usage(prompt_tokens=9, completion_tokens=0)


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"{", b'{"usage":7}', b"\xff", b""])
def test_an_odd_answer_tells_nothing(payload: bytes) -> None:
    assert CHAT.usage(payload) is None


@pytest.mark.parametrize("path", SURFACES)
def test_a_broken_stream_ends_with_an_event_of_its_surface(path: str) -> None:
    surface = SURFACES[path]

    said = surface.error_event(Overloaded("full"))

    lines = said.decode().split("\n")
    assert lines[-2:] == ["", ""]
    told = json.loads(lines[-3].removeprefix("data: "))
    assert "full" in json.dumps(told)
    assert ("event: error" in lines) == (path in {"/v1/messages", "/v1/responses"})
