"""``GET /health/live`` and ``/health/ready``: whether this worker runs, and can answer.

They need no key, and nothing that is short when there is much to do: no engine, no spool.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.api.caller import state_of
from gateway.log.segment import sizes
from gateway.names import answerable
from gateway.recorder import Recorder
from gateway.settings import GatewaySettings
from gateway.state import State

router = APIRouter()


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """This worker turns its loop: whoever waits long for this may restart it."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request, state: Annotated[State, Depends(state_of)]) -> JSONResponse:
    """Whether each alias has an engine to answer it; what waits in the spool, and what was lost.

    While the database cannot be read the worker serves by what it knows, and stays ready:
    ``state.age_s`` says how old that is.
    """
    settings: GatewaySettings = request.app.state.settings
    aliases = answerable(state.snapshot, settings.models)
    draining: bool = getattr(request.app.state, "draining", False)
    is_ready = bool(aliases) and all(aliases.values()) and state.following and not draining
    recorder: Recorder = request.app.state.recorder
    body = {
        "ready": is_ready,
        "draining": draining,
        "aliases": aliases,
        "state": {"following": state.following, "age_s": round(state.age_s, 3)},
        "spool": {
            "waiting_bytes": sum(sizes(settings.spool).values()),
            "dropped": recorder.dropped,
            "error": recorder.error,
        },
    }
    return JSONResponse(body, 200 if is_ready else 503)
