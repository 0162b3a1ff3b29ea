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
    about = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        _, section = _found(of, problem["loc"][:-1])
        allowed = ", ".join(section.get("properties", ()))
        message = "no such setting" + (f"; allowed are {allowed}" if allowed else "")
    elif problem["type"] == "string_pattern_mismatch":
        meaning, _ = _found(of, problem["loc"])
        message = f"must match {about['pattern']}" + (f" ({meaning})" if meaning else "")
    elif problem["type"] == "union_tag_not_found":
        message = f"{about['discriminator']} is missing".replace("'", "")
    elif problem["type"] == "union_tag_invalid":
        message = f"{about['discriminator']} must be one of {about['expected_tags']}"
        message = f"{message}; it is {about['tag']}".replace("'", "")
    return f"{where}: {message}" if where else message


def _found(of: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, dict[str, Any]]:
    """What is said of a setting, and its schema: found by walking the whole schema to it."""
    schema: dict[str, Any] = of.model_json_schema()
    said, node = "", _resolved(schema, schema)
    for part in location:
        if isinstance(part, int):
            inner = node.get("items", {})
        elif part in node.get("properties", {}):
            inner = node["properties"][part]
        else:  # a name that the user gave, or a union's member, which is no step
            named = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
            inner = next(filter(None, named), node)
        before = said if isinstance(part, int) else ""
        said = " ".join(inner.get("description", before).replace("``", "").split())
        node = _resolved(inner, schema)
    return said, node


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
