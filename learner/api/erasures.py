"""``/v1/erasures``: the right to be forgotten, for one tenant."""

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.errors import InvalidRequest, NotFound
from gateway.log.subject import invocation_of
from learner.api.owner import NewId, Tenant
from learner.erasure import Erasures, Whom

router = APIRouter()


class ErasureIn(BaseModel):
    """Whom to forget; one of the first three."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    user: Annotated[str, Field(min_length=1)] | None = None
    """As requests named them in ``user`` or ``safety_identifier``."""
    subject_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    """As the log names them."""
    invocation_id: str | None = None
    """Or a single call, by the id of its answer."""
    reason: Annotated[str, Field(max_length=1000)] | None = None
    remove_now: bool = False
    """Do not wait for the next physical removal, within a day."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.user, self.subject_id, self.invocation_id].count(None) != 2:
            raise ValueError("give one of user, subject_id and invocation_id")
        return self

    @property
    def whom(self) -> Whom:
        """Raises InvalidRequest when the invocation's id is none."""
        return Whom(self.user, self.subject_id, self._invocation())

    def _invocation(self) -> UUID | None:
        if self.invocation_id is None:
            return None
        found = invocation_of(self.invocation_id)
        if found is None:
            raise InvalidRequest(
                "That is no id of an answer; it looks like chatcmpl-0199...", param="invocation_id"
            )
        return found


def _erasures(request: Request) -> Erasures:
    """The application's."""
    found: Erasures = request.app.state.erasures
    return found


Desk = Annotated[Erasures, Depends(_erasures)]


@router.post("/v1/erasures")
def erase(body: ErasureIn, tenant: Tenant, erasures: Desk, erasure_id: NewId) -> dict[str, Any]:
    """Forget somebody. On return no query sees them; ``status`` says whether a file does.

    Only one removal runs at a time, and the next ten minutes later: another with ``remove_now``
    before is 429, and not taken.
    """
    whom = body.whom
    return erasures.ask(
        whom, tenant=tenant, reason=body.reason, remove_now=body.remove_now, erasure_id=erasure_id
    )


@router.get("/v1/erasures")
def recent(
    tenant: Tenant,
    erasures: Desk,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: UUID | None = None,
) -> dict[str, Any]:
    """The newest first; ``after`` is the last id of the page before."""
    behind = None if after is None else str(after)
    found = erasures.recent(tenant=tenant, limit=limit + 1, after=behind)
    page = found[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }


@router.get("/v1/erasures/{erasure_id}")
def receipt(erasure_id: str, tenant: Tenant, erasures: Desk) -> dict[str, Any]:
    """How far it is, and what had been made of the erased calls."""
    found = erasures.get(erasure_id, tenant=tenant)
    if found is None:
        raise NotFound(f"There is no erasure {erasure_id}.", param="erasure_id")
    return found


@router.post("/log/compact")
def compact(erasures: Desk) -> dict[str, Any]:
    """Remove physically what has been erased or has expired, for every tenant; what waits."""
    return {"waiting": erasures.remove()}
