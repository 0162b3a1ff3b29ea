"""Reads a request's body: what decides, and whether the log could read all of it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from gateway.errors import InvalidRequest
from gateway.surface.fields import Fields
from gateway.surface.grammar import check_grammar, is_64_bit

D = TypeVar("D", bound=msgspec.Struct)

MAX_TAGS = 16
MAX_TAG_NAME = 64
MAX_TAG = 512

_fields = msgspec.json.Decoder(dict[str, Raw])
_values = msgspec.json.Decoder(dict[str, Any])


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A request that was taken: the fields that decide, and all of them as they came."""

    model: str
    stream: bool
    n: int
    """Choices asked for, of all its prompts together."""
    store: bool | None
    metadata: dict[str, str]
    user: str | None
    """Whom the call is made for."""
    max_tokens: int | None
    """The most it may write, for each choice."""
    fields: dict[str, Raw]
    """What there is to pass on. Not to be changed: another engine may get them too."""
    prompts: int = 1
    """How many prompts the choices are of."""


class Asked(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields that decide on every surface of OpenAI's."""

    model: str
    stream: bool | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None


def read(body: bytes) -> tuple[dict[str, Raw], dict[str, Any]]:
    """The fields of ``body``, as they came and as values. Raises InvalidRequest.

    The log reads every byte of it later: what it could not read is refused now, such as text that
    is no UTF-8 and numbers beyond a double, which reading the values brings to light.
    """
    try:
        return _fields.decode(body), _values.decode(body)
    except msgspec.ValidationError as error:
        if body.lstrip()[:1] != b"{":
            raise InvalidRequest("The body must be a JSON object.") from error
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error


def admitted(fields: dict[str, Raw], values: Mapping[str, Any], surface: Fields) -> dict[str, Raw]:
    """What of ``fields`` goes to the engine. Raises InvalidRequest naming all that is refused."""
    if not surface.known.issuperset(fields):
        _refuse(fields, values, surface)
        fields = {name: fields[name] for name in fields if name in surface.known}
    for name in surface.limits.keys() & fields:
        if len(memoryview(fields[name])) > (limit := surface.limits[name]):
            raise InvalidRequest(f"{name} is over {limit} bytes of JSON.", param=name)
        check_grammar(name, fields[name], values[name])
    for name in surface.integers & fields.keys():
        if type(value := values[name]) is int and not is_64_bit(value):
            raise InvalidRequest(f"{name} must fit into 64 bits.", param=name)
    for name in surface.taken.keys() & fields:
        del fields[name]
    return fields


def _refuse(fields: Iterable[str], values: Mapping[str, Any], surface: Fields) -> None:
    known, refused = surface.known, surface.refused
    unknown = [name for name in fields if name not in known and name not in refused]
    denied = [
        name
        for name in fields
        if name in refused and not _asks_nothing(values[name], refused[name].harmless)
    ]
    if not unknown and not denied:
        return
    told = []
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        told.append(f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}.")
    if denied:
        reasons = "; ".join(f"{name} ({refused[name].why})" for name in denied)
        told.append(f"Not taken here: {reasons}.")
    raise InvalidRequest(" ".join(told), param=(unknown + denied)[0])


def _asks_nothing(value: Any, harmless: tuple[Any, ...]) -> bool:
    return value is None or any(type(value) is type(one) and value == one for one in harmless)


def decide(values: Mapping[str, Any], kind: type[D]) -> D:
    """The deciding fields as a ``kind``. Raises InvalidRequest, with the field's name."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{error}.", param=_param(str(error))) from error


def bounded(name: str, value: int | None, least: int, most: int) -> None:
    """Raises InvalidRequest for a number that is beyond what ``name`` may be."""
    if value is not None and not least <= value <= most:
        raise InvalidRequest(f"{name} must be from {least} to {most}.", param=name)


def check_tags(metadata: Mapping[str, str]) -> None:
    """OpenAI's limits, in its words."""
    if len(metadata) > MAX_TAGS:
        raise InvalidRequest(
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_TAGS} "
            f"properties, but got an object with {len(metadata)} properties instead.",
            param="metadata",
        )
    for name, value in metadata.items():
        if len(name) > MAX_TAG_NAME:
            raise InvalidRequest(
                f"Invalid 'metadata': a key is too long. Expected at most {MAX_TAG_NAME} "
                f"characters, but got {len(name)} instead.",
                param="metadata",
            )
        if len(value) > MAX_TAG:
            raise InvalidRequest(
                f"Invalid 'metadata.{name}': string too long. Expected a string with maximum "
                f"length {MAX_TAG}, but got a string with length {len(value)} instead.",
                param=f"metadata.{name}",
            )


_RESERVED = (
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
)
"""Parameters of the function that renders the template, which kwargs would overrule."""
MAX_SWITCH = 64


def check_switches(values: Mapping[str, Any]) -> None:
    """``chat_template_kwargs``: what a template may branch on, never text to put in."""
    name = "chat_template_kwargs"
    switches = values.get(name)
    if switches is None:
        return
    if type(switches) is not dict:
        raise InvalidRequest(f"{name} must be an object.", param=name)
    for key, value in switches.items():
        simple = value is None or type(value) in (bool, int, float)
        if not (simple or (type(value) is str and len(value) <= MAX_SWITCH)):
            raise InvalidRequest(
                f"{name}.{key} must be true, false, a number or a short text.",
                param=f"{name}.{key}",
            )
        if key in _RESERVED:
            raise InvalidRequest(
                f"{name}.{key} is not the template's to see.", param=f"{name}.{key}"
            )


def _param(message: str) -> str | None:
    found = re.search(r"`\$\.([^`\[.]+)", message) or re.search(r"field `([^`]+)`", message)
    return found.group(1) if found else None
