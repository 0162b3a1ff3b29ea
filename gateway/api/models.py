"""``GET /v1/models``: the names that ``model`` may say, in OpenAI's list."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from gateway.api.caller import Caller, state_of
from gateway.names import Name, named, names
from gateway.settings import GatewaySettings
from gateway.state import State

router = APIRouter()


class ModelOut(BaseModel):
    """One name, and what it means now."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: Literal["model"] = "model"
    created: int
    """When its adapter was made, in Unix seconds; 0 where no adapter answers."""
    owned_by: str
    parent: str | None
    """The base under the adapter."""
    adapter: str | None
    """The adapter that answers, by its name in the engine."""
    adapter_version: int | None
    stage: str | None
    """Of that version: ``live``, ``canary``, ``gated`` or ``retired``."""
    fine_tuned_model: str | None
    """The adapter's ``ft:...`` name; it can be asked for, too."""


class ModelsOut(BaseModel):
    """All that the key may use."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


def _settings(request: Request) -> GatewaySettings:
    settings: GatewaySettings = request.app.state.settings
    return settings


Now = Annotated[State, Depends(state_of)]
Settings = Annotated[GatewaySettings, Depends(_settings)]


@router.get("/v1/models")
async def list_models(key: Caller, state: Now, settings: Settings) -> ModelsOut:
    """Aliases, bases, providers' models, and versions that an engine holds as ``alias@vN``."""
    known = names(state.snapshot, settings.models)
    return ModelsOut(data=[_told(name) for name in known if key.allows(name.id)])


@router.get("/v1/models/{name:path}")
async def get_model(name: str, key: Caller, state: Now, settings: Settings) -> ModelOut:
    """One of them, or one by its ``ft:...`` name."""
    key.may_use(name)
    return _told(named(state.snapshot, settings.models, name))


def _told(name: Name) -> ModelOut:
    return ModelOut(
        id=name.id,
        created=name.created,
        owned_by=name.owned_by,
        parent=name.parent,
        adapter=name.adapter,
        adapter_version=name.version,
        stage=name.stage,
        fine_tuned_model=name.tuned,
    )
