"""``GET /health/ready``: whether this worker can answer, and how its spool is."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.api.caller import state_of
from gateway.log.spool import SUFFIX
from gateway.recorder import Recorder
from gateway.settings import GatewaySettings
from gateway.state import State

router = APIRouter()


@router.get("/health/ready")
def ready(request: Request, state: Annotated[State, Depends(state_of)]) -> JSONResponse:
    """Whether each alias has an engine to answer it; what waits in the spool, and what was lost."""
    snapshot = state.snapshot
    aliases: dict[str, Any] = {
        name: bool(snapshot.serving(route)) for name, route in snapshot.routes.items()
    }
    is_ready = bool(aliases) and all(aliases.values())
    recorder: Recorder = request.app.state.recorder
    settings: GatewaySettings = request.app.state.settings
    spool = {
        "waiting_bytes": _size(settings),
        "dropped": recorder.dropped,
        "error": recorder.error,
    }
    body = {"ready": is_ready, "aliases": aliases, "spool": spool}
    return JSONResponse(body, 200 if is_ready else 503)


def _size(settings: GatewaySettings) -> int:
    """Bytes of all workers' segments, ingested or not: a segment goes when it is full or old."""
    size = 0
    for segment in settings.spool.glob(f"*{SUFFIX}"):
        try:
            size += segment.stat().st_size
        except FileNotFoundError:  # ingested meanwhile
            continue
    return size
