"""A question with a name and parameters: what dashboards, the command line and the learner ask.

The questions themselves are in ``gateway.log.catalogue``.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.errors import BadQuery
from gateway.log.filter import Condition, Filter, Moment, utc

MOST = 10_000
"""Rows a named query gives at most."""


class Kind(StrEnum):
    TEXT = "text"  # compared as it is; without one, everything is meant
    INTEGER = "integer"  # at least 1
    TIME = "time"  # a time, or how long ago: 7d
    FILTER = "filter"  # the log's filter language, as JSON, over invocations i
    CHOICES = "choices"  # one or several of a closed set, each with its SQL, which it names


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may be said when asking; ``default`` is spelt as a user would."""

    name: str
    kind: Kind
    default: str | None
    about: str
    choices: Mapping[str, str] = field(default_factory=dict)

    def sql(self, given: str | None, now: datetime) -> Condition:
        """What stands for it in the query. Raises BadQuery for a value that is none."""
        value = self.default if given is None else given
        match self.kind:
            case Kind.FILTER:
                where: Filter = self._parsed(_FILTER, value or "{}")
                return where.sql(now)
            case Kind.CHOICES:
                chosen = dict.fromkeys(one.strip() for one in (value or "").split(","))
                if not chosen.keys() <= self.choices.keys():
                    raise BadQuery(f"{self.name} must be among {', '.join(self.choices)}")
                columns = (f"{self.choices[name]} AS {name}" for name in chosen)
                return Condition(", ".join(columns), [])
            case Kind.INTEGER:
                return Condition("?", [min(self._positive(value), MOST)])
            case Kind.TIME:
                moment = self._parsed(_MOMENT, f'"{value}"')
                ago = isinstance(moment, timedelta)
                return Condition("?", [utc(now - moment if ago else moment)])
        return Condition("?", [value])

    def _positive(self, value: str | None) -> int:
        try:
            number = int(value or "")
        except ValueError:
            number = 0
        if number < 1:
            raise BadQuery(f"{self.name} must be a number from 1 on, not {value!r}")
        return number

    def _parsed(self, adapter: TypeAdapter[Any], value: str) -> Any:
        try:
            return adapter.validate_json(value)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join([self.name, *map(str, problem["loc"])])
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                message = "no such field"
            raise BadQuery(f"{where}: {message}") from error


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One question. In ``template`` its parameters stand as ``{name}``."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    template: str

    def told(self) -> dict[str, Any]:
        """What can be asked, for whoever asks."""
        parameters = [
            {
                "name": one.name,
                "kind": str(one.kind),
                "default": one.default,
                "about": one.about,
                **({"choices": list(one.choices)} if one.choices else {}),
            }
            for one in self.parameters
        ]
        return {"name": self.name, "about": self.about, "parameters": parameters}

    def asked(self, given: Mapping[str, str], now: datetime) -> Condition:
        """The SQL and its values. Raises BadQuery for an unknown parameter or a bad value."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise BadQuery(f"{self.name} has no parameter {name}; it has {', '.join(known)}")
        text, values = "", list[Any]()
        for literal, placed, _, _ in string.Formatter().parse(self.template):
            text += literal
            if placed is not None:
                part = known[placed].sql(given.get(placed), now)
                text += part.text
                values += part.parameters
        return Condition(text, values)


_FILTER = TypeAdapter(Filter)
_MOMENT: TypeAdapter[datetime | timedelta] = TypeAdapter(Moment)
