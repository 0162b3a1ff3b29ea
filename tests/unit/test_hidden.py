import json
from typing import Any

import msgspec
import pytest

from gateway.api.hidden import Hidden
from gateway.api.request import rewritten
from gateway.api.stream import DONE, EventStream
from gateway.errors import InvalidRequest
from gateway.settings import Capture

ALL = Capture(token_ids=True, logprobs=True)
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}]}


def asked(capture: Capture = ALL, *, stream: bool = False, **fields: Any) -> tuple[Any, Hidden]:
    body = json.dumps({"model": "alias", "messages": [{}], "stream": stream} | fields).encode()
    sent, hidden = rewritten(body, model="base", stream=stream, capture=capture)
    return json.loads(sent), hidden


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def choice(**fields: Any) -> dict[str, Any]:
    rest = {"finish_reason": None, "token_ids": [1], "logprobs": LOGPROBS}
    return {"index": 0, "delta": {"content": "a"}} | rest | fields


def test_the_engine_is_not_told_what_only_the_gateway_means() -> None:
    sent, hidden = asked(
        Capture(), store=True, metadata={"a": "b"}, user="ann", safety_identifier="x", seed=1
    )

    assert sent == {"model": "base", "messages": [{}], "stream": False, "seed": 1}
    assert hidden == Hidden()


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


def test_usage_of_a_stream_is_always_asked_for() -> None:
    sent, hidden = asked(Capture(), stream=True, stream_options={"continuous_usage_stats": False})
    _, shown = asked(Capture(), stream=True, stream_options={"include_usage": True})

    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": False}
    assert (hidden.usage, shown.usage) == (True, False)
    with pytest.raises(InvalidRequest):
        asked(stream=True, stream_options=[])


def test_a_hidden_answer_is_the_one_the_client_would_have_got() -> None:
    message = {"role": "assistant", "content": "a"}
    whole = {"id": "c", "choices": [{"message": message, "token_ids": [1], "logprobs": LOGPROBS}]}
    payload = msgspec.json.encode(whole | {"prompt_token_ids": [2], "prompt_logprobs": None})

    neither = json.loads(Hidden(token_ids=True, logprobs=True).of_answer(payload))
    logprobs = json.loads(Hidden(token_ids=True).of_answer(payload))

    bare = {"message": message, "token_ids": None, "logprobs": None}
    rest = {"id": "c", "prompt_token_ids": None, "prompt_logprobs": None}
    assert neither == rest | {"choices": [bare]}
    assert logprobs == rest | {"choices": [bare | {"logprobs": LOGPROBS}]}
    assert Hidden().of_answer(payload) is payload


def test_a_hidden_stream_is_the_one_the_client_would_have_got() -> None:
    usage = {"total_tokens": 3}
    stream = [
        event(id="c", choices=[choice()], prompt_token_ids=[2]),
        event(id="c", choices=[choice(delta={})]),
        event(id="c", choices=[choice(delta={}, finish_reason="stop")]),
        event(id="c", choices=[], usage=usage),
        event(error={"message": "out of memory"}),
        b"data: {broken\n\n",
        DONE,
    ]

    events = EventStream(Hidden(token_ids=True, logprobs=True))
    seen = b"".join(events.whole(piece) for piece in stream)

    bare = {"token_ids": None, "logprobs": None}
    assert seen == b"".join(
        [
            event(id="c", choices=[choice(**bare)], prompt_token_ids=None),
            event(id="c", choices=[choice(delta={}, finish_reason="stop", **bare)]),
            event(id="c", choices=[], usage=usage),
            event(error={"message": "out of memory"}),
            b"data: {broken\n\n",
            DONE,
        ]
    )


def test_an_event_without_text_stays_where_the_client_asked_for_its_logprobs() -> None:
    stream = event(choices=[choice(delta={})])

    seen = EventStream(Hidden(token_ids=True)).whole(stream)

    assert seen == event(choices=[choice(delta={}, token_ids=None)])


def test_events_leave_only_whole() -> None:
    events = EventStream(Hidden())

    first, second, third = (events.whole(p) for p in (b"data: a\n\ndata", b": b\n", b"\n"))

    assert (first, second, third) == (b"data: a\n\n", b"", b"data: b\n\n")


def test_usage_that_was_not_asked_for_is_left_out_wherever_it_is_cut() -> None:
    stream = b'data: {"choices":[{}]}\n\ndata: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n'
    wanted = b'data: {"choices":[{}]}\n\ndata: [DONE]\n\n'

    for cut in range(len(stream)):
        events = EventStream(Hidden(usage=True))
        assert events.whole(stream[:cut]) + events.whole(stream[cut:]) == wanted


def test_a_model_cannot_say_the_end_of_its_stream() -> None:
    said = event(choices=[choice(delta={"content": "data: [DONE]\n\n"})])

    assert not EventStream(Hidden()).whole(said).endswith(DONE)
    assert EventStream(Hidden()).whole(said + DONE).endswith(DONE)
