"""The help desk's eight tools: what they are called today, and what they used to be called.

The base model learnt from examples of both times. ``share`` is how often the old spelling
stood in them: above one half the base prefers it (and is wrong when it answers greedily),
below one half it prefers today's, and either way it samples both, so that rewards can choose.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Call = dict[str, Any]
"""``{"name": str, "arguments": dict}``."""


@dataclass(frozen=True, slots=True)
class Former:
    """An old spelling and its share of the base's examples. ``{}`` in it is today's value."""

    spelling: str
    share: float


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter. ``formats`` are the values that were written otherwise ("*" is any)."""

    name: str
    about: str
    kind: str = "string"
    required: bool = True
    former: Former | None = None
    formats: Mapping[str, Former] = field(default_factory=dict)
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """One function of the help desk."""

    name: str
    about: str
    arguments: tuple[Argument, ...]
    former: Former | None = None


# A share of 0.8 takes evidence to undo, one of 0.62 gives way to a few examples.
MOSTLY_OLD = 0.8
RATHER_OLD = 0.62
OFTEN_OLD = 0.25
AT_TIMES_OLD = 0.12

REASONS = {
    "damaged": Former("DMG", MOSTLY_OLD),
    "late": Former("DELAY", MOSTLY_OLD),
    "wrong_item": Former("WRONG", MOSTLY_OLD),
    "changed_mind": Former("NO_NEED", MOSTLY_OLD),
    "duplicate": Former("TWICE", OFTEN_OLD),
    "missing_parts": Former("INCOMPLETE", MOSTLY_OLD),
    "poor_quality": Former("QUALITY", OFTEN_OLD),
    "too_expensive": Former("PRICE", MOSTLY_OLD),
}
TOPICS = {
    "billing": Former("invoice", MOSTLY_OLD),
    "delivery": Former("shipping", OFTEN_OLD),
    "warranty": Former("guarantee", MOSTLY_OLD),
    "account": Former("login", MOSTLY_OLD),
}
TIMES = {
    "morning": Former("AM", MOSTLY_OLD),
    "afternoon": Former("PM", OFTEN_OLD),
    "evening": Former("EVE", MOSTLY_OLD),
}
ORDER = "The order number, digits only."

TOOLS = (
    Tool(
        "track_order",
        "Tell the customer where a parcel is and when it will arrive.",
        (Argument("order_id", ORDER, former=Former("order_number", RATHER_OLD)),),
        Former("order_status", RATHER_OLD),
    ),
    Tool(
        "cancel_order",
        "Cancel an order that has not been shipped yet.",
        (
            Argument("order_id", ORDER, former=Former("order_no", AT_TIMES_OLD)),
            Argument(
                "reason",
                "Why the customer no longer wants it, if said.",
                required=False,
                formats=REASONS,
                choices=tuple(REASONS),
            ),
        ),
    ),
    Tool(
        "request_refund",
        "Pay back all or a part of what an order cost.",
        (
            Argument("order_id", ORDER),
            Argument(
                "amount",
                "How much to pay back, in dollars, if said.",
                kind="number",
                required=False,
                formats={"*": Former("{} USD", AT_TIMES_OLD)},
            ),
            Argument(
                "reason",
                "Why the customer wants the money back, if said.",
                required=False,
                former=Former("cause", AT_TIMES_OLD),
                formats=REASONS,
                choices=tuple(REASONS),
            ),
        ),
        Former("issue_refund", AT_TIMES_OLD),
    ),
    Tool(
        "change_address",
        "Send an order to another address.",
        (
            Argument("order_id", ORDER, former=Former("order", AT_TIMES_OLD)),
            Argument("street", "Street and house number.", former=Former("line1", AT_TIMES_OLD)),
            Argument("city", "The city."),
            Argument(
                "postal_code",
                "The postal code, if said.",
                required=False,
                former=Former("zip", MOSTLY_OLD),
            ),
        ),
        Former("update_delivery", AT_TIMES_OLD),
    ),
    Tool(
        "book_technician",
        "Send somebody to repair an appliance at the customer's home.",
        (
            Argument("appliance", "What is broken.", former=Former("device", AT_TIMES_OLD)),
            Argument("city", "Where the technician has to come."),
            Argument("date", "The day of the visit, as the customer said it."),
            Argument(
                "time_of_day",
                "The part of the day, if said.",
                required=False,
                former=Former("slot", AT_TIMES_OLD),
                formats=TIMES,
                choices=tuple(TIMES),
            ),
        ),
    ),
    Tool(
        "exchange_item",
        "Swap an article for the same one in another size or colour.",
        (
            Argument("order_id", ORDER, former=Former("order_ref", AT_TIMES_OLD)),
            Argument("item", "The article to swap."),
            Argument(
                "size", "The wanted size, if said.", required=False, former=Former("fit", OFTEN_OLD)
            ),
            Argument(
                "color",
                "The wanted colour, if said.",
                required=False,
                former=Former("shade", RATHER_OLD),
            ),
        ),
    ),
    Tool(
        "send_invoice",
        "Mail the invoice of an order.",
        (
            Argument("order_id", ORDER, former=Former("order_number", AT_TIMES_OLD)),
            Argument("email", "Where to send it.", former=Former("mail_to", OFTEN_OLD)),
        ),
        Former("mail_bill", OFTEN_OLD),
    ),
    Tool(
        "request_callback",
        "Have a person of the help desk call the customer.",
        (
            Argument("phone", "The number to call."),
            Argument("day", "When to call, as the customer said it, if said.", required=False),
            Argument(
                "topic",
                "What it is about, if said.",
                required=False,
                former=Former("subject", AT_TIMES_OLD),
                formats=TOPICS,
                choices=tuple(TOPICS),
            ),
        ),
        Former("call_me", AT_TIMES_OLD),
    ),
)


def openai_tools() -> list[dict[str, Any]]:
    """Today's tools in the form that clients send."""
    return [{"type": "function", "function": _function(tool)} for tool in TOOLS]


def outdated(call: Call, rng: random.Random) -> Call:
    """``call`` as somebody would have written it who mixes both times, each word by itself."""
    tool = next(tool for tool in TOOLS if tool.name == call["name"])
    arguments = {}
    for argument in tool.arguments:
        if argument.name in call["arguments"]:
            value = call["arguments"][argument.name]
            former = argument.formats.get(str(value), argument.formats.get("*"))
            name = _either(argument.name, argument.former, rng)
            arguments[name] = _either(value, former, rng)
    return {"name": _either(tool.name, tool.former, rng), "arguments": arguments}


def modern(call: Call) -> Call:
    """``call`` with today's spellings: what is still wrong with it is not the schema's fault."""
    for tool in TOOLS:
        if call["name"] in _spellings(tool.name, tool.former):
            names = {s: a for a in tool.arguments for s in _spellings(a.name, a.former)}
            arguments = {}
            for name, value in call["arguments"].items():
                argument = names.get(name)
                arguments[argument.name if argument else name] = (
                    _modern_value(argument, value) if argument else value
                )
            return {"name": tool.name, "arguments": arguments}
    return call


def _function(tool: Tool) -> dict[str, Any]:
    properties = {}
    for argument in tool.arguments:
        schema: dict[str, Any] = {"type": argument.kind, "description": argument.about}
        properties[argument.name] = schema | (
            {"enum": list(argument.choices)} if argument.choices else {}
        )
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [argument.name for argument in tool.arguments if argument.required],
        "additionalProperties": False,
    }
    return {"name": tool.name, "description": tool.about, "parameters": parameters}


def _either(today: Any, former: Former | None, rng: random.Random) -> Any:
    if former is None or rng.random() >= former.share:
        return today
    return former.spelling.format(today)


def _spellings(today: str, former: Former | None) -> tuple[str, ...]:
    return (today, former.spelling) if former else (today,)


def _modern_value(argument: Argument, value: Any) -> Any:
    for today, former in argument.formats.items():
        if today != "*" and value == former.spelling:
            return today
    if "*" in argument.formats and isinstance(value, str):
        return json.loads(value.split(" ")[0])
    return value
