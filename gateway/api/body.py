"""A request's body, whole but not too large, for the endpoints that are not the hot path."""

from typing import TypeVar

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from gateway.errors import InvalidRequest, TooLarge

Model = TypeVar("Model", bound=BaseModel)


async def whole(request: Request) -> bytes:
    """Raises TooLarge beyond the limit of the settings."""
    limit: int = request.app.state.settings.max_body_bytes
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes.")
    return b"".join(pieces)


async def as_object(request: Request) -> dict[str, object]:
    """The body as a JSON object. Raises InvalidRequest, TooLarge."""
    try:
        body: dict[str, object] = msgspec.json.decode(await whole(request), type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body must be a JSON object: {error}.") from error
    return body


def checked(body: dict[str, object], model: type[Model]) -> Model:
    """The body as a ``model``; what is wrong with it is answered with 400."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
