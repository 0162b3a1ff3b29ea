"""Grades a tool call: does it parse, is it the right tool, are the arguments right."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from learner.dataset.sample import Message, Sample
from learner.errors import GradingError
from learner.rewards.grader import Grade

LONGEST_ARGUMENTS = 20_000
"""Characters of one call's arguments; more is not read, so that judging stays cheap."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's name and its normalised arguments (see ``normalised``)."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Weights:
    """What the parts count; they need not sum to 1."""

    parses: float = 0.1
    name: float = 0.3
    arguments: float = 0.6

    def __post_init__(self) -> None:
        values = (self.parses, self.name, self.arguments)
        if min(values) < 0 or not 0 < sum(values) < math.inf:
            raise ValueError(f"weights {values} must be >= 0 and not all 0")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Compares the tool calls of an answer with those of the reference.

    The parts of a grade, each in [0, 1]:

    - ``parses``: there is a call, and the arguments of every call are a JSON object.
    - ``name``: the share of expected calls whose tool was called.
    - ``arguments``: F1 over (argument name, value) pairs; none expected and none given is 1.
    - ``exact``: the same calls with equal arguments, in any order. Not part of the score.

    Callers execute every call and every argument, so padding an answer is not worth it:
    more calls than expected earn ``parses`` only, and more than twice the expected
    arguments (plus one) earn nothing for them. A missing or malformed reference is a
    GradingError.
    """

    weights: Weights = field(default_factory=Weights)
    name: str = "tool_call"

    async def grade(self, sample: Sample, completion: Message) -> Grade:
        expected = expected_calls(sample)
        given = given_calls(completion)
        if given is None:
            return self._grade(0.0, 0.0, 0.0, 0.0, "no tool call with a JSON object as arguments")
        if len(given) > len(expected):
            reason = f"{len(given)} calls, {len(expected)} expected"
            return self._grade(1.0, 0.0, 0.0, 0.0, reason)
        pairs = _aligned(expected, given)
        right = sum(call is not None and call.name == want.name for want, call in pairs)
        name = right / len(expected)
        arguments = _f1(pairs)
        exact = float(all(call == want for want, call in pairs))
        reason = (
            "exact" if exact else f"tools {right}/{len(expected)}, arguments F1 {arguments:.2f}"
        )
        return self._grade(1.0, name, arguments, exact, reason)

    def _grade(
        self, parses: float, name: float, arguments: float, exact: float, reason: str
    ) -> Grade:
        weights = self.weights
        total = weights.parses + weights.name + weights.arguments
        score = weights.parses * parses + weights.name * name + weights.arguments * arguments
        parts = (("parses", parses), ("name", name), ("arguments", arguments), ("exact", exact))
        return Grade(min(1.0, score / total), reason, parts)


def expected_calls(sample: Sample) -> tuple[Call, ...]:
    """The calls of the reference answer; GradingError when it holds none."""
    reference = sample.reference_answer
    calls = [reference] if isinstance(reference, Mapping) else reference
    if not isinstance(calls, Sequence) or isinstance(calls, str) or not calls:
        raise GradingError(f"sample {sample.id} has no tool call as its reference_answer")
    return tuple(_reference_call(sample, call) for call in calls)


def given_calls(completion: Message) -> tuple[Call, ...] | None:
    """The calls of an assistant message, or None when there is none or one does not parse."""
    calls = completion.get("tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str) or not calls:
        return None
    parsed = tuple(_parsed(call) for call in calls)
    return tuple(call for call in parsed if call) if all(parsed) else None


def normalised(value: Any) -> Any:
    """``value`` as a user compares it.

    Strings ignore case and the amount of white space; numbers compare by value (2 is 2.0)
    and differ from strings and booleans; an object's null members count as absent.
    """
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, bool) or value is None:
        return ("literal", value)
    if isinstance(value, Mapping):
        return {key: normalised(member) for key, member in value.items() if member is not None}
    if isinstance(value, Sequence):
        return [normalised(member) for member in value]
    return value


def _reference_call(sample: Sample, call: Any) -> Call:
    if isinstance(call, Mapping) and isinstance(call.get("name"), str):
        arguments = call.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _json_object(arguments)
        if isinstance(arguments, Mapping):
            return Call(call["name"], normalised(arguments))
    raise GradingError(
        f"sample {sample.id}: a reference call needs a name and an object of arguments"
    )


def _parsed(call: Any) -> Call | None:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = _json_object(function.get("arguments"))
    return None if arguments is None else Call(function["name"], arguments)


def _json_object(text: Any) -> Mapping[str, Any] | None:
    if not isinstance(text, str) or len(text) > LONGEST_ARGUMENTS:
        return None
    try:
        value = json.loads(text, parse_constant=_not_json)
        return normalised(value) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _aligned(
    expected: Sequence[Call], given: Sequence[Call]
) -> tuple[tuple[Call, Call | None], ...]:
    """Each expected call with the given one that resembles it most; each given one once."""
    left = list(given)
    pairs: list[tuple[Call, Call | None]] = []
    for want in sorted(expected, key=lambda call: -_resemblance(call, given)):
        best = max(left, key=lambda call: _similarity(want, call), default=None)
        if best is not None:
            left.remove(best)
        pairs.append((want, best))
    return tuple(pairs)


def _resemblance(want: Call, given: Sequence[Call]) -> float:
    return max((_similarity(want, call) for call in given), default=0.0)


def _similarity(want: Call, call: Call) -> float:
    return (want.name == call.name) + _f1(((want, call),))


def _f1(pairs: Sequence[tuple[Call, Call | None]]) -> float:
    expected = sum(len(want.arguments) for want, _ in pairs)
    given = sum(len(call.arguments) for _, call in pairs if call is not None)
    if expected == given == 0:
        return 1.0
    if given > 2 * expected + 1:
        return 0.0
    hits = sum(_hits(want, call) for want, call in pairs if call is not None)
    return 2 * hits / (expected + given)


def _hits(want: Call, call: Call) -> int:
    return sum(
        name in call.arguments and call.arguments[name] == value
        for name, value in want.arguments.items()
    )
