"""The log's filter language: Bedrock's requestMetadataFilters, and time, task, alias and more.

One implementation for policies (``where``), the command line and the API. A filter becomes a
condition over ``invocations i``; whatever a user wrote travels as a parameter, never as SQL.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL after WHERE, over ``invocations`` called ``i``, and the values of its ``?``."""

    text: str
    parameters: list[Any]

    @classmethod
    def all(cls, conditions: Iterable["Condition"]) -> "Condition":
        """True where every one of them is; of none, everywhere."""
        return cls._joined(conditions, " AND ") or cls("true", [])

    @classmethod
    def any(cls, conditions: Iterable["Condition"]) -> "Condition":
        """True where at least one of them is; of none, nowhere."""
        return cls._joined(conditions, " OR ") or cls("false", [])

    @classmethod
    def _joined(cls, conditions: Iterable["Condition"], word: str) -> "Condition | None":
        parts = list(conditions)
        if len(parts) <= 1:
            return parts[0] if parts else None
        text = word.join(part.text for part in parts)
        return cls(f"({text})", [value for part in parts for value in part.parameters])


def _several(value: Any) -> Any:
    """One value, or a list of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _moment(value: Any) -> datetime | timedelta:
    if isinstance(value, str):
        if found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value):
            return timedelta(seconds=float(found.group(1)) * _UNITS[found.group(2)])
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, clock())
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a time (2026-11-20T14:00:00Z; UTC) or how long ago (15m, 6h, 7d)")


Moment = Annotated[datetime | timedelta, BeforeValidator(_moment)]
Pair = Annotated[dict[str, str], Field(min_length=1, max_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_several)]
NamesOrNull = Annotated[tuple[str | None, ...], Field(min_length=1), BeforeValidator(_several)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _OneOf(_Part):
    """A union in Bedrock's sense: exactly one of its members is given."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            names = [field.alias or name for name, field in type(self).model_fields.items()]
            raise ValueError(f"give exactly one of {', '.join(names)}")
        return self


class MetadataBase(_OneOf):
    """Bedrock's RequestMetadataBaseFilters: one key, and what its value is or is not."""

    equals: Pair | None = None
    """The key has this value."""
    not_equals: Pair | None = Field(None, alias="notEquals")
    """The key does not have this value: it has another, or the call has no such key."""

    def over(self, tags: str) -> Condition:
        """The same as a condition over the map ``tags``."""
        pair, operator = (
            (self.equals, "=") if self.equals else (self.not_equals, "IS DISTINCT FROM")
        )
        ((key, value),) = (pair or {}).items()
        return Condition(f"{tags}[?] {operator} ?", [key, value])


class MetadataFilter(MetadataBase):
    """Bedrock's RequestMetadataFilters, or plain ``key: value`` pairs, which all must hold."""

    and_all: Annotated[tuple[MetadataBase, ...], Field(min_length=1, max_length=16)] | None = Field(
        None, alias="andAll"
    )
    """All of these hold."""
    or_all: Annotated[tuple[MetadataBase, ...], Field(min_length=1, max_length=16)] | None = Field(
        None, alias="orAll"
    )
    """At least one of these holds."""

    @model_validator(mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if (
            isinstance(value, dict)
            and value
            and not any(isinstance(one, dict | list | tuple) for one in value.values())
        ):
            return {"andAll": [{"equals": {key: one}} for key, one in value.items()]}
        return value

    def over(self, tags: str) -> Condition:
        """The same as a condition over the map ``tags``."""
        if self.and_all:
            return Condition.all(one.over(tags) for one in self.and_all)
        if self.or_all:
            return Condition.any(one.over(tags) for one in self.or_all)
        return super().over(tags)

    def sql(self) -> Condition:
        """The same over the request's metadata, as last edited."""
        asked, edited = self.over("i.tags"), self.over("e.tags")
        text = _METADATA.format(asked=asked.text, edited=edited.text)
        return Condition(text, [*edited.parameters, *asked.parameters])


class TimeFilter(_Part):
    """When the request came: from ``after`` on, and earlier than ``before``."""

    after: Moment | None = None
    """A time, or how long ago: ``7d``."""
    before: Moment | None = None
    """A time, or how long ago: ``1h``."""

    def sql(self, now: datetime) -> Condition:
        """The same as a condition."""
        bounds = (("i.ts >= ?", self.after), ("i.ts < ?", self.before))
        return Condition.all(
            Condition(text, [utc(now - moment if isinstance(moment, timedelta) else moment)])
            for text, moment in bounds
            if moment is not None
        )


class StatusRange(_Part):
    """HTTP statuses from ``min`` to ``max``, both included."""

    min: int = 0
    max: int = 999


def _status(value: Any) -> Any:
    """A number, a list of them, or a range."""
    return value if isinstance(value, dict | StatusRange) else _several(value)


class FeedbackFilter(_Part):
    """Current feedback of this name, of the call or of its episode, from anybody."""

    name: str
    """A metric, or comment, demonstration, preference, reference."""
    min: float | None = None
    """Some score is at least this."""
    max: float | None = None
    """Some score is at most this."""
    equals: bool | float | str | None = None
    """Some score (true is 1, false is 0), or some label, is this."""
    exists: bool = True
    """false: there is no such feedback."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [self.min, self.max, self.equals]
        if not self.exists and any(one is not None for one in given):
            raise ValueError("exists: false leaves nothing for min, max and equals to hold of")
        return self

    def sql(self) -> Condition:
        """The same as a condition."""
        about = ["f.name = ?"]
        parameters: list[Any] = [self.name]
        equals = "f.score_label = ?" if isinstance(self.equals, str) else "f.score_value = ?"
        tests = (("f.score_value >= ?", self.min), ("f.score_value <= ?", self.max))
        for text, value in (*tests, (equals, self.equals)):
            if value is not None:
                about.append(text)
                parameters.append(float(value) if isinstance(value, bool) else value)
        found = _FEEDBACK.format(about=" AND ".join(about))
        return Condition(found if self.exists else f"NOT {found}", parameters * 2)


class Filter(_Part):
    """Which invocations are meant: those that everything given here holds of."""

    metadata: MetadataFilter | None = Field(
        default=None, validation_alias=AliasChoices("metadata", "requestMetadataFilters")
    )
    """Of the request's metadata, as last edited: Bedrock's filters, or ``key: value`` pairs."""
    time: TimeFilter | None = None
    """When the request came."""
    task: Names = ()
    """One task or a list."""
    alias: Names = ()
    """The model clients asked for: one or a list."""
    adapter: NamesOrNull = ()
    """Which adapter answered: one or a list; null is the base."""
    arm: NamesOrNull = ()
    """By which arm: incumbent, one of the alias' arms, fallback, shadow; one or a list."""
    key: NamesOrNull = ()
    """The id of the key that asked: one or a list."""
    origin: Names = ()
    """Where it came from: gateway, or the import; one or a list."""
    status: Annotated[tuple[int, ...] | StatusRange, BeforeValidator(_status)] = ()
    """HTTP status: a number, a list, or ``{min, max}``."""
    error_type: NamesOrNull = ()
    """What went wrong: one or a list; null is nothing."""
    feedback: Annotated[tuple[FeedbackFilter, ...], BeforeValidator(_several)] = ()
    """What was said about it: one or a list, all of which hold."""

    def sql(self, now: datetime) -> Condition:
        """The condition; ``now`` is what "7d" is counted back from."""
        parts = [part.sql() for part in (self.metadata, *self.feedback) if part is not None]
        if self.time is not None:
            parts.append(self.time.sql(now))
        if isinstance(self.status, StatusRange):
            parts.append(Condition("i.status BETWEEN ? AND ?", [self.status.min, self.status.max]))
        elif self.status:
            parts.append(_among("status", self.status))
        for column, values in (
            ("task", self.task),
            ("request_model", self.alias),
            ("adapter", self.adapter),
            ("arm", self.arm),
            ("key_id", self.key),
            ("origin", self.origin),
            ("error_type", self.error_type),
        ):
            if values:
                parts.append(_among(column, values))
        return Condition.all(parts)


def _among(column: str, values: Sequence[Any]) -> Condition:
    """``column`` is one of ``values``, of which None means NULL."""
    there = [value for value in values if value is not None]
    marks = ", ".join("?" * len(there))
    either = [Condition(f"i.{column} IN ({marks})", there)] if there else []
    if None in values:
        either.append(Condition(f"i.{column} IS NULL", []))
    return Condition.any(either)


def utc(moment: datetime) -> datetime:
    """As the log writes times: UTC without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None)


# Few calls are ever edited: asking for the edited ones apart is 4 times faster than a join.
_METADATA = """CASE WHEN i.id IN (SELECT invocation_id FROM edits)
  THEN i.id IN (SELECT e.invocation_id FROM
    (SELECT invocation_id, arg_max(tags, id) AS tags FROM edits GROUP BY ALL) e WHERE {edited})
  ELSE {asked} END"""
_FEEDBACK = """((i.tenant, i.id) IN (SELECT (f.tenant, f.target_id) FROM feedback_current f
  WHERE f.target = 'invocation' AND {about})
  OR (i.tenant, i.episode_id) IN (SELECT (f.tenant, f.target_id) FROM feedback_current f
  WHERE f.target = 'episode' AND {about}))"""
