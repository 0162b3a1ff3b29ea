"""``GET /metrics``: what all workers of this machine have counted, for Prometheus.

It needs no key, as Prometheus expects it: keep the path on the private network. It names
aliases and engines, never keys, tenants or what was said.
"""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.log.segment import stats
from gateway.names import answerable
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.telemetry import Board
from gateway.telemetry.exposition import Engine, House, exposed
from gateway.telemetry.text import CONTENT_TYPE

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Counters of all workers, also of those long gone; gauges of those that run."""
    shared = request.app.state
    board: Board = shared.board
    pages = board.pages()
    live = {worker: page for worker, page in pages.items() if board.is_live(page)}
    house = _house(shared.gateway, shared.settings, now=shared.now().timestamp())
    return Response(exposed(pages, live, house), media_type=CONTENT_TYPE)


def _house(state: State, settings: GatewaySettings, *, now: float) -> House:
    snapshot = state.snapshot
    waiting = stats(settings.spool).values()
    return House(
        engines=tuple(
            Engine(engine.engine_id, engine.base, engine.state) for engine in snapshot.engines
        ),
        ready=answerable(snapshot, settings.models),
        spool_bytes=sum(segment.st_size for segment in waiting),
        spool_oldest_s=max((now - segment.st_mtime for segment in waiting), default=0.0),
    )
