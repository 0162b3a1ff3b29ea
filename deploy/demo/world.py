"""The demo's world: customers' requests to a help desk, and the call that answers each.

Pure and seeded. Three splits never share a request, nor an order number, a phone number, an
e-mail address or a street: every such text belongs to one split, by its hash.
"""

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import phrasings as say
from schema import TOOLS, Call, Tool


class Split(StrEnum):
    """Who gets to see a request."""

    BASE = "base"
    """What the base model learns from, in the outdated schema."""
    TRAFFIC = "traffic"
    """What the demo's customers ask."""
    HELD_OUT = "heldout"
    """What adapters are compared on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a customer wrote and the call that today's schema wants for it."""

    text: str
    call: Call


Slot = Callable[[Split, random.Random], tuple[str, Any]]
"""Makes one filler: its text in the request and its value in the call."""

SHARES = {Split.BASE: range(6), Split.TRAFFIC: range(6, 9), Split.HELD_OUT: range(9, 10)}
GROUP = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


def owner(text: str) -> Split:
    """The split that a text belongs to, whatever the seed."""
    bucket = zlib.crc32(text.casefold().encode()) % 10
    return next(split for split, share in SHARES.items() if bucket in share)


def requests(split: Split, seed: int) -> Iterator[Request]:
    """Endless requests of one split, no text twice."""
    rng = random.Random(f"{seed}:{split}")
    seen: set[str] = set()
    while True:
        request = _request(rng.choice(TOOLS), split, rng)
        key = request.text.casefold()
        if owner(key) is split and key not in seen:
            seen.add(key)
            yield request


def row(split: Split, number: int, request: Request) -> dict[str, Any]:
    """A line of ``traffic.jsonl`` or ``heldout.jsonl``."""
    return {
        "id": f"helpdesk-{split}-{number:05d}",
        "messages": [{"role": "user", "content": request.text}],
        "reference_answer": request.call,
    }


def _request(tool: Tool, split: Split, rng: random.Random) -> Request:
    pattern = expand(rng.choice(say.PATTERNS[tool.name]), rng)
    opener, closer = rng.choice(say.OPENERS), rng.choice(say.CLOSERS)
    if rng.random() < 0.15:  # somebody in a hurry, or on a phone
        opener, closer, pattern = "", "", pattern.lower().rstrip(".?!")
    text, values = _fill(pattern, split, rng)
    if opener.endswith((", ", ": ")) and not text.startswith(("I ", "I'")):
        text = text[0].lower() + text[1:]
    arguments = {a.name: values[a.name] for a in tool.arguments if a.name in values}
    return Request(opener + text + closer, {"name": tool.name, "arguments": arguments})


def expand(pattern: str, rng: random.Random) -> str:
    """``pattern`` with its choices made, from the innermost outwards; slots stay."""
    pattern = pattern.replace("{variant}", say.VARIANT)
    while group := GROUP.search(pattern):
        choice, option = group.groups()
        chosen = rng.choice((option, "") if choice is None else choice.split("|"))
        pattern = pattern[: group.start()] + chosen + pattern[group.end() :]
    return pattern


def _fill(pattern: str, split: Split, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """The text of a request, sentences capitalised, and the value of each slot in it."""
    values: dict[str, Any] = {}

    def fill(slot: re.Match[str]) -> str:
        text, values[slot[1]] = SLOTS[slot[1]](split, rng)
        begins = slot.start() == 0 or pattern[: slot.start()].endswith((". ", "? "))
        return text[0].upper() + text[1:] if begins else text

    return SLOT.sub(fill, pattern), values


def _own(split: Split, make: Callable[[], str]) -> str:
    """The first text that ``make`` gives and ``split`` owns."""
    while owner(text := make()) is not split:
        pass
    return text


def _order(split: Split, rng: random.Random) -> tuple[str, Any]:
    number = _own(split, lambda: str(rng.randrange(100_000, 1_000_000)))
    return rng.choice(("", "", "#", "no. ", "number ")) + number, number


def _phone(split: Split, rng: random.Random) -> tuple[str, Any]:
    return _same("555-" + _own(split, lambda: str(rng.randrange(100_000, 1_000_000))))


def _email(split: Split, rng: random.Random) -> tuple[str, Any]:
    def make() -> str:
        person = f"{rng.choice(say.FIRST_NAMES)}.{rng.choice(say.LAST_NAMES)}"
        return f"{person}@{rng.choice(say.DOMAINS)}"

    return _same(_own(split, make))


def _street(split: Split, rng: random.Random) -> tuple[str, Any]:
    def make() -> str:
        return f"{rng.randrange(1, 200)} {rng.choice(say.STREETS)} {rng.choice(say.ROADS)}"

    return _same(_own(split, make))


def _postal_code(split: Split, rng: random.Random) -> tuple[str, Any]:
    return _same(_own(split, lambda: str(rng.randrange(10_000, 100_000))))


def _amount(_: Split, rng: random.Random) -> tuple[str, Any]:
    whole = rng.randrange(5, 400)
    amount = whole if rng.random() < 0.3 else whole + rng.choice((0.25, 0.49, 0.75, 0.95, 0.99))
    return rng.choice((f"${amount}", f"{amount} dollars")), amount


def _date(_: Split, rng: random.Random) -> tuple[str, Any]:
    month, day = rng.choice(say.MONTHS), rng.randrange(1, 29)
    weekday = rng.choice(say.WEEKDAYS)
    date = rng.choice((f"{month} {day}", f"{day} {month}", weekday, f"next {weekday}", "tomorrow"))
    return (f"on {date}" if date[0].isupper() or date[0].isdigit() else date), date


def _day(_: Split, rng: random.Random) -> tuple[str, Any]:
    day = rng.choice((*say.WEEKDAYS, "today", "tomorrow"))
    return (f"on {day}" if day[0].isupper() else day), day


def _same(text: str) -> tuple[str, Any]:
    return text, text


def _one_of(values: tuple[str, ...]) -> Slot:
    return lambda _, rng: _same(rng.choice(values))


def _said(ways: dict[str, tuple[str, ...]]) -> Slot:
    """One code, and one of the ways in which customers say it."""

    def slot(_: Split, rng: random.Random) -> tuple[str, Any]:
        code = rng.choice(tuple(ways))
        return rng.choice(ways[code]), code

    return slot


SLOTS: dict[str, Slot] = {
    "order_id": _order,
    "phone": _phone,
    "email": _email,
    "street": _street,
    "postal_code": _postal_code,
    "amount": _amount,
    "date": _date,
    "day": _day,
    "city": _one_of(say.CITIES),
    "appliance": _one_of(say.APPLIANCES),
    "item": _one_of(say.ITEMS),
    "size": _one_of(say.SIZES),
    "color": _one_of(say.COLORS),
    "reason": _said(say.REASONS),
    "topic": _said(say.TOPICS),
    "time_of_day": _said(say.TIMES),
}
