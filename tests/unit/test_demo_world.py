"""The demo's world: what ``deploy/demo`` promises about its requests and their answers."""

import itertools
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "demo"
KINDS = {"string": str, "number": (int, float)}


@pytest.fixture(scope="module")
def demo() -> Iterator[SimpleNamespace]:
    """The demo's scripts import each other by bare names, as they do when run as a program."""
    sys.path.insert(0, str(DEMO))
    try:
        import phrasings
        import schema
        import world
    finally:
        sys.path.remove(str(DEMO))
    yield SimpleNamespace(world=world, schema=schema, phrasings=phrasings)
    for name in ("phrasings", "schema", "world"):
        del sys.modules[name]


def draw(demo: SimpleNamespace, split: str, n: int, seed: int = 0) -> list[Any]:
    source = demo.world.requests(demo.world.Split(split), seed)
    return list(itertools.islice(source, n))


def test_the_same_seed_gives_the_same_requests_and_another_seed_others(
    demo: SimpleNamespace,
) -> None:
    first = draw(demo, "traffic", 200)

    again, other = draw(demo, "traffic", 200), draw(demo, "traffic", 200, seed=1)

    assert first == again
    assert first != other


def test_no_request_is_in_two_splits_or_twice_in_one(demo: SimpleNamespace) -> None:
    splits = {"base": 4000, "traffic": 3000, "heldout": 1000}

    texts = [r.text.casefold() for split, n in splits.items() for r in draw(demo, split, n)]

    assert len(set(texts)) == len(texts)


def test_no_order_number_address_or_phone_number_is_in_two_splits(demo: SimpleNamespace) -> None:
    private = ("order_id", "email", "phone", "street", "postal_code")

    values = {
        split: {
            str(value)
            for request in draw(demo, split, 1500)
            for name, value in request.call["arguments"].items()
            if name in private
        }
        for split in ("base", "traffic", "heldout")
    }

    assert not values["base"] & (values["traffic"] | values["heldout"])
    assert not values["traffic"] & values["heldout"]


def test_every_tool_is_among_the_held_out_requests(demo: SimpleNamespace) -> None:
    asked = {request.call["name"] for request in draw(demo, "heldout", 300)}

    assert asked == {tool.name for tool in demo.schema.TOOLS}
    assert len(asked) == 8


def test_every_reference_is_a_valid_call_of_todays_tools(demo: SimpleNamespace) -> None:
    functions = {tool["function"]["name"]: tool["function"] for tool in demo.schema.openai_tools()}

    for request in draw(demo, "traffic", 1500):
        parameters = functions[request.call["name"]]["parameters"]
        arguments = request.call["arguments"]
        assert set(parameters["required"]) <= set(arguments) <= set(parameters["properties"])
        for name, value in arguments.items():
            schema = parameters["properties"][name]
            assert isinstance(value, KINDS[schema["type"]])
            assert value in schema.get("enum", [value])


def test_calls_have_one_to_four_arguments(demo: SimpleNamespace) -> None:
    sizes = {len(request.call["arguments"]) for request in draw(demo, "traffic", 500)}

    assert sizes == {1, 2, 3, 4}


def test_no_trace_of_the_grammar_is_left_in_a_request(demo: SimpleNamespace) -> None:
    for request in draw(demo, "traffic", 1500):
        assert not re.search(r"[(){}|\[\]]|\s\s|\s[.,?!]|\?\.", request.text), request.text


def test_every_pattern_can_be_expanded_and_fills_only_known_slots(demo: SimpleNamespace) -> None:
    known = {tool.name: {a.name for a in tool.arguments} for tool in demo.schema.TOOLS}
    rng = random.Random(0)

    for tool, patterns in demo.phrasings.PATTERNS.items():
        for pattern in patterns:
            text = demo.world.expand(pattern, rng)
            assert set(re.findall(r"\{(\w+)\}", text)) <= known[tool], text


def test_an_outdated_call_made_modern_is_the_reference_again(demo: SimpleNamespace) -> None:
    rng = random.Random(0)
    calls = [request.call for request in draw(demo, "base", 1000)]

    outdated = [demo.schema.outdated(call, rng) for call in calls]

    assert [demo.schema.modern(call) for call in outdated] == calls
    assert 0.5 < sum(old != call for old, call in zip(outdated, calls, strict=True)) / 1000 < 0.9
