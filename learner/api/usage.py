"""``/v1/usage``: what calls took, in the shape of OpenAI's usage API."""

from itertools import islice
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import InvalidRequest
from gateway.keys import Scope
from gateway.log.usage import Span, buckets
from learner.api.owner import Desk, Tenant

router = APIRouter()

Width = Literal["1m", "1h", "1d"]
Group = Literal["api_key_id", "model", "adapter", "arm", "task", "operation", "user_id"]
Seconds = Annotated[int, Field(ge=0, le=253_402_300_799)]

_SECONDS: dict[Width, int] = {"1m": 60, "1h": 3600, "1d": 86400}
_LIMITS: dict[Width, tuple[int, int]] = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
"""Buckets in a page: where nothing is said, and at most."""


class UsageIn(BaseModel):
    """What is asked for. A parameter that is not known would be a filter that is not applied."""

    model_config = ConfigDict(extra="forbid")

    start_time: Seconds | None = None
    """Seconds since 1970; where left out, a page ends now."""
    end_time: Seconds | None = None
    """Exclusive; now where left out."""
    bucket_width: Width = "1d"
    group_by: tuple[str, ...] = ()
    group_by_list: Annotated[tuple[str, ...], Field(alias="group_by[]")] = ()
    """The same as OpenAI's clients spell it."""
    limit: Annotated[int | None, Field(ge=1)] = None
    page: str | None = None

    def groups(self) -> list[str]:
        """Each once. Raises InvalidRequest."""
        said = ",".join((*self.group_by, *self.group_by_list))
        names = list(dict.fromkeys(name for one in said.split(",") if (name := one.strip())))
        known = get_args(Group)
        if wrong := [name for name in names if name not in known]:
            raise InvalidRequest(
                f"group_by takes {', '.join(known)}; not {', '.join(wrong)}", param="group_by"
            )
        return names

    def buckets(self) -> int:
        """How many a page has. Raises InvalidRequest."""
        usual, most = _LIMITS[self.bucket_width]
        if self.limit is not None and self.limit > most:
            raise InvalidRequest(
                f"limit is at most {most} with bucket_width {self.bucket_width}", param="limit"
            )
        return self.limit or usual

    def span(self, now: int) -> Span:
        """All that is asked for. Raises InvalidRequest."""
        width = _SECONDS[self.bucket_width]
        # What was answered within this second counts.
        end = now + 1 if self.end_time is None else self.end_time
        last = max(end - 1, 0)
        start = last - last % width - (self.buckets() - 1) * width
        start = max(start, 0) if self.start_time is None else self.start_time
        if start >= end:
            raise InvalidRequest("end_time must be after start_time", param="end_time")
        return Span(start, end, width)


@router.get("/v1/usage")
@router.get("/v1/organization/usage/completions")
def usage(
    asked: Annotated[UsageIn, Query()],
    desk: Desk,
    tenant: Tenant,
    key: Annotated[str, Header(alias="x-ratchet-key", min_length=1)],
    scopes: Annotated[str, Header(alias="x-ratchet-scopes")] = "",
) -> dict[str, Any]:
    """The tenant's use to a key that may administer it, else the key's own. All that was answered
    until now is in it.
    """
    groups, whole = asked.groups(), asked.span(int(desk.now().timestamp()))
    start = whole.start if asked.page is None else _cursor(asked.page, whole)
    page = list(islice(Span(start, whole.end, whole.width).cut(), asked.buckets()))
    upto = page[-1][1]
    desk.catch_up_to_now()
    found = buckets(
        desk.log,
        Span(start, upto, whole.width),
        tenant=tenant,
        key=None if Scope.ADMIN in scopes.split(",") else key,
        by=groups,
    )
    has_more = upto < whole.end
    return {
        "object": "page",
        "data": found,
        "has_more": has_more,
        "next_page": f"page_{upto}" if has_more else None,
    }


def _cursor(page: str, whole: Span) -> int:
    prefix, _, number = page.partition("_")
    if prefix != "page" or not number.isdecimal() or not whole.start <= int(number) < whole.end:
        raise InvalidRequest(
            "page must be the next_page of an answer to the same question", param="page"
        )
    return int(number)
