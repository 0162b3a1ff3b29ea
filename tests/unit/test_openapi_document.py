"""The document tells of every route there is, and of no other."""

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

from gateway.api import feedback, health, keys, metrics, models, owner, scores
from gateway.api.openapi import document
from gateway.surface import SURFACES

ROUTERS: list[APIRouter] = [
    one.router for one in (feedback, health, keys, metrics, models, owner, scores)
]


def test_every_route_is_documented_and_nothing_else() -> None:
    routed = {
        (route.path.replace(":path", ""), method.lower())
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }

    told = {(path, method) for path, item in document()["paths"].items() for method in item}

    assert told == routed | {(path, "post") for path in SURFACES}


def test_every_schema_is_one_and_every_reference_is_to_one() -> None:
    told = document()
    schemas = told["components"]["schemas"]

    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    assert {ref.rpartition("/")[2] for ref in references(told)} <= schemas.keys()


def test_examples_are_what_the_surfaces_take() -> None:
    for path, surface in SURFACES.items():
        operation = document()["paths"][path]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]

        for example in examples.values():
            assert set(example["value"]) <= surface.fields.known
            assert set(surface.fields.required) <= set(example["value"])


def test_only_making_a_key_can_conflict_with_what_is_there() -> None:
    told = {
        (method, path)
        for path, item in document()["paths"].items()
        for method, operation in item.items()
        if "409" in operation["responses"]
    }

    assert told == {("post", "/v1/keys")}


def references(inside: Any) -> set[str]:
    if isinstance(inside, dict):
        own = {inside["$ref"]} if isinstance(inside.get("$ref"), str) else set()
        return own.union(*map(references, inside.values()))
    if isinstance(inside, list | tuple):
        return set().union(*map(references, inside))
    return set()
