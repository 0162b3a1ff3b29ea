"""What of a grammar an engine must not get: it would compile it for minutes, or for ever."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import InvalidRequest

MAX_COUNT = 100_000
"""Asked for an array of 10**9 items, vLLM 0.32 hangs and has to be killed."""
_COUNTS = frozenset(
    f"{bound}{what}"
    for bound in ("min", "max")
    for what in ("Items", "Length", "Properties", "Contains")
)
_EMBEDDED = frozenset({"json", "structural_tag"})
"""JSON in a string, which vLLM reads as it does JSON."""
_SUSPECT = (b"min", b"max", b"\\u00")
"""A bound, however it is written: what has none is not looked at twice."""
_LEAST, _MOST = -(2**63), 2**63 - 1


def check_grammar(name: str, raw: Raw, value: Any) -> None:
    """Raises InvalidRequest for counts that an engine does not survive, and numbers it trips on."""
    written = bytes(raw)
    if not any(one in written for one in _SUSPECT):
        return
    for key, one in _numbers(value):
        if key in _COUNTS and one > MAX_COUNT:
            raise InvalidRequest(f"{name}: {key} must be at most {MAX_COUNT}.", param=name)
        if type(one) is int and not is_64_bit(one):
            raise InvalidRequest(f"{name}: {key} must fit into 64 bits.", param=name)


def is_64_bit(value: int) -> bool:
    """Whether an engine can pass it on to itself: beyond, vLLM answers 500."""
    return _LEAST <= value <= _MOST


def _numbers(value: Any) -> Iterator[tuple[str, int | float]]:
    """All numbers in ``value``, each with the key it is under."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        key, one = left.pop()
        if type(one) is dict:
            left += one.items()
        elif type(one) is list:
            left += [(key, item) for item in one]
        elif type(one) is int or type(one) is float:
            yield key, one
        elif type(one) is str and key in _EMBEDDED:
            try:
                left.append((key, msgspec.json.decode(one)))
            except (msgspec.DecodeError, RecursionError):
                continue  # the engine will say what is wrong with it
