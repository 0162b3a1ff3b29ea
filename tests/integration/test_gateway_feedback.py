import base64
import json
from uuid import UUID

import httpx
import pytest

from gateway.log.subject import episode_of
from tests.integration.conftest import Gateway

ANSWER = UUID("01a1f951-32aa-7714-a187-b9e4ad3742e3")
ANSWER_ID = f"chatcmpl-{ANSWER.hex}"
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
DECLARED = {
    "GATEWAY_METRICS": {
        "solved": {"type": "boolean"},
        "rank": {"type": "float", "level": "episode"},
    }
}


async def test_feedback_takes_the_same_way_as_answers(gateway: Gateway) -> None:
    answer = await gateway.post("/v1/chat/completions", gateway.body())
    answer_id = answer.json()["id"]
    given = [
        ("demonstration", {"tool_calls": [CALL]}),
        ("comment", "wrong tool"),
        ("preference", {"preferred": answer_id, "rejected": "no"}),
        ("solved", False),
        ("stars", 0.5),
    ]

    for name, value in given:
        response = await _give(gateway, metric_name=name, value=value, inference_id=answer_id)
        assert response.status_code == 200, response.text

    rows = gateway.logged("SELECT f.* FROM feedback f JOIN invocations i ON i.id = f.target_id")
    by_name = {row["name"]: row for row in rows}
    assert by_name.keys() == {name for name, _ in given}
    assert (by_name["solved"]["score_value"], by_name["solved"]["score_label"]) == (0.0, "false")
    assert (by_name["stars"]["score_value"], by_name["stars"]["score_label"]) == (0.5, None)
    assert by_name["comment"]["explanation"] == "wrong tool"
    demonstrated = json.loads(str(by_name["demonstration"]["value"]))
    assert demonstrated == {"role": "assistant", "tool_calls": [CALL]}


async def test_feedback_may_come_before_its_invocation_and_by_tensorzeros_own_path(
    gateway: Gateway,
) -> None:
    body = {"metric_name": "stars", "value": 1, "inference_id": str(ANSWER), "tags": {"a": "b"}}

    response = await gateway.post("/feedback", body)

    (record,) = gateway.spooled()
    assert response.json() == {"feedback_id": str(record.id)}
    assert (record.target, record.target_id, record.tenant) == ("invocation", ANSWER, "acme")
    assert (record.name, record.score_value, record.tags) == ("stars", 1.0, {"a": "b"})


async def test_an_episode_is_found_by_the_name_its_calls_gave(gateway: Gateway) -> None:
    headers = {"x-ratchet-episode-id": "booking 7"}
    await gateway.post("/v1/chat/completions", gateway.body(), **headers)

    await _give(gateway, metric_name="booked", value=True, episode_id="booking 7")

    call, feedback = gateway.spooled()
    assert (feedback.target, feedback.target_id) == ("episode", call.episode_id)


async def test_a_dry_run_checks_everything_and_writes_nothing(gateway: Gateway) -> None:
    good = await _give(gateway, metric_name="stars", value=1, inference_id=ANSWER_ID, dryrun=True)
    bad = await _give(gateway, metric_name="stars", value="x", inference_id=ANSWER_ID, dryrun=True)

    assert (good.status_code, bad.status_code) == (200, 400)
    assert gateway.spooled() == []


BAD_FEEDBACK: list[tuple[dict[str, object], str | None]] = [
    ({"inference_id": None}, None),
    ({"episode_id": "e"}, None),
    ({"inference_id": "gpt-4"}, "inference_id"),
    ({"inference_id": ""}, "inference_id"),
    ({"metric_name": ""}, "metric_name"),
    ({"metric_name": 7}, "metric_name"),
    ({"dry_run": True}, "dry_run"),
    ({"tags": {"a": 1}}, "tags.a"),
    ({"value": "text"}, "value"),
    ({"metric_name": "demonstration", "value": {"role": "user"}}, "value.role"),
    ({"metric_name": "preference", "value": {"preferred": "a"}}, "value"),
]


async def test_bad_feedback_is_400_and_not_taken(gateway: Gateway) -> None:
    good = {"metric_name": "stars", "value": 1, "inference_id": ANSWER_ID}

    for change, param in BAD_FEEDBACK:
        response = await _give(gateway, **(good | change))

        assert response.status_code == 400, change
        assert response.json()["error"]["param"] == param

    assert gateway.spooled() == []


async def test_what_is_no_object_or_too_large_is_refused(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as client:
        for content, status in ((b"[1]", 400), (b"{", 400), (b"\xff", 400), (b"x" * 200_000, 413)):
            response = await client.post("/v1/feedback", content=content)

            assert response.status_code == status
            assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("settings", [DECLARED])
async def test_where_metrics_are_declared_no_other_is_taken(gateway: Gateway) -> None:
    declared = await _give(gateway, metric_name="solved", value=True, inference_id=ANSWER_ID)
    unknown = await _give(gateway, metric_name="resolved", value=True, inference_id=ANSWER_ID)
    level = await _give(gateway, metric_name="rank", value=1, inference_id=ANSWER_ID)
    comment = await _give(gateway, metric_name="comment", value="ok", inference_id=ANSWER_ID)

    assert (declared.status_code, comment.status_code) == (200, 200)
    assert (unknown.status_code, level.status_code) == (400, 400)
    assert "declared are rank, solved" in unknown.json()["error"]["message"]
    assert level.json()["error"]["param"] == "episode_id"


async def test_portkeys_feedback_is_taken_as_it_is(gateway: Gateway) -> None:
    answered = {"trace_id": ANSWER_ID, "value": 1}
    traced = {"trace_id": "trace 7", "value": -5, "weight": 0.5, "metadata": {"_user": "ann"}}

    first = await gateway.post("/v1/feedback", answered)
    second = await gateway.post("/v1/feedback", traced)
    beyond = await gateway.post("/v1/feedback", traced | {"value": 11})

    by_answer, by_trace = gateway.spooled()
    assert first.json() == {
        "status": "success",
        "message": "Feedback successfully saved",
        "feedback_ids": [str(by_answer.id)],
    }
    assert (by_answer.target, by_answer.target_id) == ("invocation", ANSWER)
    assert (by_answer.name, by_answer.score_value) == ("feedback", 1.0)
    assert second.status_code == 200
    assert (by_trace.target, by_trace.score_value) == ("episode", -5.0)
    assert by_trace.target_id == episode_of("acme", "trace 7")
    assert by_trace.tags == {"_user": "ann", "weight": "0.5"}
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (400, "value")


async def test_portkeys_trace_id_names_the_same_episode_in_calls_and_feedback(
    gateway: Gateway,
) -> None:
    headers = {"x-portkey-trace-id": "trace 7"}
    await gateway.post("/v1/chat/completions", gateway.body(), **headers)

    await gateway.post("/v1/feedback", {"trace_id": "trace 7", "value": 1})

    call, feedback = gateway.spooled()
    assert call.episode_id == feedback.target_id


async def test_langfuses_scores_are_taken_as_they_are(gateway: Gateway) -> None:
    pair = base64.b64encode(f"pk-lf-any:{gateway.key}".encode()).decode()
    score = {"traceId": ANSWER_ID, "name": "helpful", "value": 0.9}
    trace = {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "name": "tone", "comment": "shouts"}

    number = await _score(gateway, score | {"id": "s1", "dataType": "NUMERIC"})
    boolean = await _score(
        gateway, score | {"value": 1, "dataType": "BOOLEAN"}, authorization=f"Basic {pair}"
    )
    category = await _score(gateway, trace | {"value": "rude", "metadata": {"n": 1, "s": "t"}})
    step = await _score(gateway, trace | {"value": 1, "observationId": "step 2"})
    session = await _score(gateway, {"sessionId": "chat 1", "name": "ok", "value": 1})

    records = gateway.spooled()
    assert number.json() == {"id": "s1"}
    assert boolean.json() == {"id": str(records[1].id)}
    assert {one.status_code for one in (number, boolean, category, step, session)} == {200}
    by_number, by_boolean, by_category, by_step, by_session = records
    assert (by_number.target_id, by_number.score_value) == (ANSWER, 0.9)
    assert by_number.tags == {"score_id": "s1"}
    assert (by_boolean.score_value, by_boolean.score_label) == (1.0, "true")
    assert (by_category.score_value, by_category.score_label) == (None, "rude")
    assert (by_category.explanation, by_category.tags) == ("shouts", {"n": "1", "s": "t"})
    assert by_category.target_id == by_step.target_id == UUID(trace["traceId"])
    assert by_session.target_id == episode_of("acme", "chat 1")


BAD_SCORES: list[tuple[dict[str, object], str]] = [
    ({"traceId": None}, "traceId"),
    ({"traceId": None, "observationId": "step 2"}, "traceId"),
    ({"name": None}, "name"),
    ({"value": 2, "dataType": "BOOLEAN"}, "value"),
    ({"value": "x", "dataType": "NUMERIC"}, "value"),
    ({"value": 1, "dataType": "CATEGORICAL"}, "value"),
    ({"dataType": "TEXT"}, "dataType"),
]


async def test_bad_scores_are_400_and_not_taken(gateway: Gateway) -> None:
    good = {"traceId": ANSWER_ID, "name": "helpful", "value": 1}

    for change, param in BAD_SCORES:
        response = await _score(gateway, good | change)

        assert response.status_code == 400, change
        assert response.json()["error"]["param"] == param

    assert gateway.spooled() == []


async def test_a_score_without_a_key_is_401(gateway: Gateway) -> None:
    for authorization in ("", "Basic", "Basic !", "Basic " + base64.b64encode(b"pk:no").decode()):
        response = await _score(gateway, {}, authorization=authorization)

        assert response.status_code == 401


async def _give(gateway: Gateway, **body: object) -> httpx.Response:
    return await gateway.post("/v1/feedback", body)


async def _score(gateway: Gateway, body: object, **headers: str) -> httpx.Response:
    return await gateway.post("/api/public/scores", body, **headers)
