"""What is wrong with something a user wrote, in one line."""

from typing import Any

from pydantic import BaseModel, ValidationError

_WORDS = {
    "model_type": "must be a section of settings",
    "dict_type": "must be a section of settings",
    "tuple_type": "must be a list",
    "missing": "is missing",
}
"""Pydantic's sentences that speak of Python, in the words of YAML and JSON."""


def explain(error: ValidationError, of: type[BaseModel]) -> str:
    """The first problem: where, what, and what is allowed in an ``of``."""
    # A misspelt setting is also a missing one: the misspelling is what helps.
    problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    # Union members and validators put their own names into the location; users have none.
    where = ".".join(str(part) for part in problem["loc"] if not str(part).endswith("]"))
    message = _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        allowed = _allowed(of, problem["loc"][:-1])
        message = "no such setting" + (f"; allowed are {', '.join(allowed)}" if allowed else "")
    return f"{where}: {message}" if where else message


def _allowed(of: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The settings a section takes, found by walking the schema to it."""
    schema: dict[str, Any] = of.model_json_schema()
    node = _resolved(schema, schema)
    for part in location:
        if isinstance(part, int):
            inner = node.get("items", {})
        elif part in node.get("properties", {}):
            inner = node["properties"][part]
        else:  # a name that the user gave, or a union's member, which is no step
            named = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
            inner = next(filter(None, named), node)
        node = _resolved(inner, schema)
    return tuple(node.get("properties", {}))


def _resolved(node: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """The node itself, where the schema says where it is, or that it may be left out."""
    while isinstance(node, dict):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((one for one in node["anyOf"] if one.get("type") != "null"), {})
        else:
            return node
    return {}
