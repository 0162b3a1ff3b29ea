"""One gateway worker, put together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.routing import Route

from gateway.api import chat, envelope, feedback, models
from gateway.log.spool import SpoolWriter
from gateway.recorder import Recorder
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.upstream import Upstream


def create_app(settings: GatewaySettings, *, now: Callable[[], datetime]) -> FastAPI:
    """The ASGI application. It opens the spool and the state when it starts up."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = State.open(settings.database, now=now)
        spool = SpoolWriter(settings.spool, settings.worker)
        upstream = Upstream(
            timeout_s=settings.upstream_timeout_s, connections=settings.upstream_connections
        )
        app.state.gateway, app.state.spool, app.state.now = state, spool, now
        endpoint = chat.ChatCompletions(
            state, upstream, Recorder(spool), max_body_bytes=settings.max_body_bytes, now=now
        )
        # A class instance, so that Starlette hands it the bare ASGI call.
        app.router.routes.insert(0, Route(chat.PATH, endpoint, methods=["POST"]))
        follower = asyncio.create_task(
            state.follow(poll_s=settings.poll_s, refresh_s=settings.refresh_s)
        )
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await upstream.close()
        spool.close()
        state.close()

    app = FastAPI(title="Ratchet", lifespan=lifespan)
    envelope.install(app)
    app.include_router(models.router)
    app.include_router(feedback.router)

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """Whether each alias has an engine to answer it."""
        snapshot = app.state.gateway.snapshot
        aliases: dict[str, Any] = {
            name: bool(snapshot.serving(route)) for name, route in snapshot.routes.items()
        }
        is_ready = bool(aliases) and all(aliases.values())
        return JSONResponse({"ready": is_ready, "aliases": aliases}, 200 if is_ready else 503)

    return app
