"""Where an import goes, and the ids that make a second one add nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.errors import BadRow
from gateway.log.record import Feedback, Invocation, named_id
from gateway.log.subject import invocation_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_NULL: Final = msgspec.Raw(b"null")
_END_USER: Final = ("safety_identifier", "user", "user_id")

_plain = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class Intake:
    """What the operator says of everything in a file."""

    origin: str
    tenant: str
    at: datetime
    """When rows that do not say their time happened."""
    subject: Callable[[str, str], str]
    """The keyed hash of a tenant's end user."""
    episode: Callable[[str, str], UUID]
    """The episode that a tenant calls by a name."""
    alias: str | None = None
    """What ``request_model`` becomes; None: what the row says."""
    task: str | None = None
    """What ``task`` becomes; None: what the row says."""
    train_ok: bool = True

    def id(self, identity: str, ts: datetime | None) -> UUID:
        """A UUIDv7 that is the same for the same row, whenever and from wherever it comes.

        Its time is the row's own, zero for a row that has none; its 74 other bits are a hash.
        """
        milliseconds = 0 if ts is None else (ts - _EPOCH) // _MILLISECOND
        if milliseconds < 0:
            raise BadRow(f"its time {ts} is before 1970")
        return named_id(milliseconds, f"{self.origin}\0{self.tenant}\0{identity}")

    def invocation(  # noqa: PLR0913 - what every shape knows of a call
        self,
        identity: str,
        *,
        ts: datetime | None,
        model: str,
        asked: Mapping[str, Any],
        request: msgspec.Raw | None = None,
        metadata: Mapping[str, Any] | None = None,
        task: str | None = None,
        user: str | None = None,
        **known: Any,
    ) -> Invocation:
        """The record of one call.

        ``asked`` is its request in OpenAI's form, which is kept as ``request`` where that is
        given. Metadata means here what it means to the gateway.
        """
        made = self.id(identity, ts)
        tags = tags_of(asked.get("metadata") if metadata is None else metadata)
        user = user or end_user(asked) or end_user(tags)
        episode = tags.get("episode_id")
        alias = self.alias or model
        return Invocation(
            id=made,
            ts=ts or self.at,
            tenant=self.tenant,
            task=self.task or task or tags.get("task") or alias,
            episode_id=self.episode(self.tenant, episode) if episode else made,
            parent_id=invocation_of(tags.get("parent_id", "")),
            request_model=alias,
            origin=self.origin,
            conversation_id=known.pop("conversation_id", None) or tags.get("conversation_id"),
            subject_id=self.subject(self.tenant, user) if user else None,
            train_ok=self.train_ok
            and asked.get("store") is not False
            and tags.get("train_ok", "true").lower() == "true",
            tags=tags or None,
            request=raw(asked or None) if request is None else request,
            **known,
        )

    def feedback(self, about: Invocation, name: str, value: Any) -> Feedback:
        """What the same row says about its call."""
        return Feedback(
            id=named_id(about.id.int >> 80, f"{about.id}\0{name}"),
            ts=about.ts,
            tenant=self.tenant,
            target="invocation",
            target_id=about.id,
            name=name,
            origin=self.origin,
            value=value,
        )


def raw(body: Any) -> msgspec.Raw:
    """A body as the log keeps it."""
    return _NULL if body is None else msgspec.Raw(_plain.encode(body))


def text(value: Any) -> str:
    """A value as compact JSON."""
    return _plain.encode(value).decode()


def canonical(row: Any) -> str:
    """The same text for the same JSON value, however it was written."""
    return _canonical.encode(row).decode()


def moment(value: Any) -> datetime:
    """A time: ISO 8601 (UTC where it does not say), or seconds since 1970. Raises BadRow."""
    try:
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value)
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BadRow(f"{value!r} is no time: {error}") from error
    raise BadRow(f"{value!r} is no time")


def tags_of(metadata: Any) -> dict[str, str]:
    """Metadata as the log's tags: strings; what is no string as JSON, what is null not at all."""
    return {
        str(key): value if isinstance(value, str) else text(value)
        for key, value in mapping(metadata).items()
        if value is not None
    }


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def end_user(said: Mapping[str, Any]) -> str | None:
    """Who a body or its metadata says the end user is, by the names in use for it."""
    for name in _END_USER:
        if isinstance(said.get(name), str) and said[name]:
            return str(said[name])
    return None
