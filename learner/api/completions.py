"""``/v1/chat/completions``: stored completions, read and changed by the tenant they belong to."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, ValidationError

from gateway.errors import InvalidRequest
from gateway.log.completions import Completions, Window
from gateway.log.erasure import BODIES
from gateway.log.filter import MetadataFilter
from gateway.log.record import Edit, Erasure, new_id
from learner.api.owner import Desk, NewId, Tenant

router = APIRouter(prefix="/v1/chat/completions")

_PAIR = re.compile(r"metadata\[(.+)\]")


class EditIn(BaseModel):
    """What a stored completion's metadata becomes, all of it."""

    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    )


def _window(
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "asc",
) -> Window:
    return Window(after, limit, descending=order == "desc")


Asked = Annotated[Window, Depends(_window)]


def _completions(tenant: Tenant, desk: Desk) -> Completions:
    """The tenant's, what was just answered among them."""
    desk.catch_up()
    return Completions(desk.log, tenant)


Own = Annotated[Completions, Depends(_completions)]


@router.get("")
def page(request: Request, own: Own, window: Asked, model: str | None = None) -> dict[str, Any]:
    """Those asked for with ``store``, oldest first."""
    return own.page(window, model=model, metadata=_metadata(request)).told()


@router.get("/{completion_id}")
def get(completion_id: str, own: Own) -> dict[str, Any]:
    """One, as it was answered."""
    return own.get(completion_id)


@router.post("/{completion_id}")
def update(  # noqa: PLR0913, PLR0917 - what the request says, and whom it is put to
    completion_id: str, body: EditIn, own: Own, desk: Desk, tenant: Tenant, edit_id: NewId
) -> dict[str, Any]:
    """Replace its metadata. Sent again, it changes nothing, whatever has been changed since."""
    edit = Edit(
        id=edit_id,
        ts=desk.now(),
        tenant=tenant,
        invocation_id=own.id_of(completion_id),
        tags=body.metadata or {},
    )
    desk.write(edit)
    return own.get(completion_id)


@router.delete("/{completion_id}")
def delete(completion_id: str, own: Own, desk: Desk, tenant: Tenant) -> dict[str, Any]:
    """Take its bodies out of the log; the rest of the row stays, for the bill."""
    erasure = Erasure(
        id=new_id(),
        ts=desk.now(),
        tenant=tenant,
        scope=BODIES,
        invocation_id=own.id_of(completion_id),
        reason="its stored completion was deleted",
    )
    desk.write(erasure)
    return {"object": "chat.completion.deleted", "id": completion_id, "deleted": True}


@router.get("/{completion_id}/messages")
def messages(completion_id: str, own: Own, window: Asked) -> dict[str, Any]:
    """What was asked, message by message."""
    return own.messages(completion_id, window).told()


def _metadata(request: Request) -> MetadataFilter | None:
    """Of ``metadata[key]=value``; all of them must hold."""
    pairs = {
        found.group(1): value
        for name, value in request.query_params.items()
        if (found := _PAIR.fullmatch(name))
    }
    if not pairs:
        return None
    try:
        return MetadataFilter.model_validate(pairs)
    except ValidationError as error:
        raise InvalidRequest("metadata takes 16 keys at most", param="metadata") from error
