"""What somebody says of an answer or an episode, by whichever API, becomes one feedback record."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.errors import InvalidRequest
from gateway.log.record import Feedback
from gateway.log.subject import ANSWER_PREFIX, invocation_of
from gateway.settings import COMMENT, DEMONSTRATION, PREFERENCE, REFERENCE, RESERVED, Metric

_LEVELS = {"inference": "invocation", "episode": "episode"}


@dataclass(frozen=True, slots=True)
class Opinion:
    """One fact about its target. ``value`` is whatever JSON the client sent."""

    name: str
    value: Any
    target: Literal["invocation", "episode"]
    target_id: UUID
    is_category: bool = False
    """Whether ``value`` may be a word that is none of the reserved facts."""
    comment: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def feedback(
    opinion: Opinion, metrics: Mapping[str, Metric], *, feedback_id: UUID, tenant: str, at: datetime
) -> Feedback:
    """Its record. Raises InvalidRequest when it does not hold together, or is not declared.

    Where metrics are declared no other is taken. A boolean is 1 or 0 with the label true or
    false, so that a reader can tell it from a number.
    """
    return Feedback(
        id=feedback_id,
        ts=at,
        tenant=tenant,
        target=opinion.target,
        target_id=opinion.target_id,
        name=opinion.name,
        tags=dict(opinion.tags) or None,
        **({"explanation": opinion.comment} | _content(opinion, metrics)),
    )


def answer_named(name: str) -> UUID | None:
    """The invocation that ``name`` can only mean: its answer's id, or its request id.

    32 hexadecimal digits without dashes are a W3C trace id, and other UUIDs the client's own.
    """
    found = invocation_of(name)
    if found is None or name.startswith(ANSWER_PREFIX):
        return found
    return found if found.version == 7 and "-" in name else None


def _content(opinion: Opinion, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The fields of the record that hold what is said."""
    if opinion.name == COMMENT:
        if not isinstance(opinion.value, str):
            raise InvalidRequest("a comment's value must be a string", param="value")
        return {"explanation": opinion.value}
    if opinion.name in {DEMONSTRATION, PREFERENCE}:
        if opinion.target != "invocation":
            raise InvalidRequest(
                f"a {opinion.name} is of one answer: give inference_id", param="inference_id"
            )
        make = _demonstration if opinion.name == DEMONSTRATION else _preference
        return {"value": make(opinion.value)}
    if opinion.name == REFERENCE:
        raise InvalidRequest(
            f"`{REFERENCE}` is the name of imported answers; give a {DEMONSTRATION}",
            param="metric_name",
        )
    metric = _declared(opinion, metrics)
    return _score(opinion, metric.type if metric else None)


def _declared(opinion: Opinion, metrics: Mapping[str, Metric]) -> Metric | None:
    """The metric's declaration; None when none are declared."""
    if not metrics:
        return None
    metric = metrics.get(opinion.name)
    if metric is None:
        raise InvalidRequest(
            f"no metric is called `{opinion.name}`; declared are "
            f"{', '.join(sorted(metrics))}, and always {', '.join(RESERVED)}",
            param="metric_name",
        )
    if _LEVELS[metric.level] != opinion.target:
        raise InvalidRequest(
            f"the metric `{opinion.name}` is of one {metric.level}: give {metric.level}_id",
            param=f"{metric.level}_id",
        )
    return metric


def _score(opinion: Opinion, declared: str | None) -> dict[str, Any]:
    value = opinion.value
    if opinion.is_category and isinstance(value, str) and declared is None:
        return {"score_label": value}
    if declared == "boolean" and value in (0, 1):
        value = bool(value)
    if isinstance(value, bool) and declared != "float":
        return {"score_value": float(value), "score_label": str(value).lower()}
    if isinstance(value, int | float) and not isinstance(value, bool) and declared != "boolean":
        return {"score_value": _finite(value)}
    wanted = {"boolean": "true or false", "float": "a number", None: "a boolean or a number"}
    raise InvalidRequest(
        f"the value of metric `{opinion.name}` must be {wanted[declared]}", param="value"
    )


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidRequest("the value is too large for a number", param="value")
    return number


def _preference(value: Any) -> dict[str, Any]:
    """Two answers to the same prompt, each an answer's id or an assistant message."""
    if not isinstance(value, dict) or not {"preferred", "rejected"} <= value.keys():
        raise InvalidRequest(
            'a preference\'s value must be {"preferred": ..., "rejected": ...}, each an answer\'s '
            "id, a string or an assistant message",
            param="value",
        )
    pair = {
        side: _answer(value[side], f"value.{side}", PREFERENCE)
        for side in ("preferred", "rejected")
    }
    if pair["preferred"] == pair["rejected"]:
        raise InvalidRequest("preferred and rejected are the same answer", param="value.rejected")
    return pair


def _answer(value: Any, param: str, name: str) -> Any:
    if isinstance(value, str) and (found := answer_named(value)):
        return f"{ANSWER_PREFIX}{found.hex}"
    return _message(value, param, name)


def _demonstration(value: Any) -> dict[str, Any]:
    """The assistant message that should have been the answer."""
    return _message(value, "value", DEMONSTRATION)


def _message(value: Any, param: str, name: str) -> dict[str, Any]:
    if isinstance(value, str) and value:
        return {"role": "assistant", "content": value}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"a {name}'s value must hold the answer: a string or an assistant message",
            param=param,
        )
    if value.get("role", "assistant") != "assistant":
        raise InvalidRequest(f"a {name}'s role must be assistant", param=f"{param}.role")
    calls = value.get("tool_calls")
    if not value.get("content") and not calls:
        raise InvalidRequest(f"a {name} needs content or tool_calls", param=param)
    if calls is not None and not isinstance(calls, list):
        raise InvalidRequest("tool_calls must be a list", param=f"{param}.tool_calls")
    for index, call in enumerate(calls or ()):
        if not _is_call(call):
            raise InvalidRequest(
                "a tool call is {type: function, function: {name, arguments}}, its arguments "
                "the text of a JSON object",
                param=f"{param}.tool_calls.{index}",
            )
    return {"role": "assistant", **value}


def _is_call(call: Any) -> bool:
    """Whether graders and trainers will be able to read this call."""
    try:
        arguments = json.loads(call["function"]["arguments"])
        return isinstance(call["function"]["name"], str) and isinstance(arguments, dict)
    except (TypeError, KeyError, ValueError, RecursionError):
        return False
