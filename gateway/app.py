"""One gateway worker, put together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from functools import partial

from fastapi import FastAPI
from starlette.routing import Route

from gateway.api import chat, envelope, feedback, health, keys, models, owner, scores
from gateway.cors import Cors
from gateway.log.cipher import Cipher
from gateway.log.spool import SpoolWriter
from gateway.log.subject import SubjectKey
from gateway.recorder import Recorder
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.upstream import Upstream


def create_app(
    settings: GatewaySettings,
    *,
    subjects: SubjectKey,
    cipher: Cipher | None = None,
    now: Callable[[], datetime],
) -> FastAPI:
    """The ASGI application. It opens the spool and the state when it starts up.

    With a ``cipher`` the spool is encrypted.
    """
    worker = partial(_worker, settings=settings, subjects=subjects, cipher=cipher, now=now)
    app = FastAPI(title="Ratchet", lifespan=worker)
    app.state.settings, app.state.now = settings, now
    envelope.install(app)
    Cors.of(settings.cors.origins).install(app)
    for resource in (models, keys, feedback, scores, owner, health):
        app.include_router(resource.router)
    return app


@asynccontextmanager
async def _worker(
    app: FastAPI,
    *,
    settings: GatewaySettings,
    subjects: SubjectKey,
    cipher: Cipher | None,
    now: Callable[[], datetime],
) -> AsyncIterator[None]:
    """What is open while the application serves."""
    async with AsyncExitStack() as stack:
        state = State.open(settings.database, now=now)
        stack.callback(state.close)
        spool = _spool(settings, cipher, now)
        stack.callback(spool.close)
        upstream = Upstream(
            timeout_s=settings.upstream_timeout_s, connections=settings.upstream_connections
        )
        stack.push_async_callback(upstream.close)
        log_owner = owner.Owner(settings.learner)
        stack.push_async_callback(log_owner.close)
        recorder = Recorder(spool, best_effort=settings.best_effort)
        app.state.gateway, app.state.recorder, app.state.owner = state, recorder, log_owner
        endpoint = chat.ChatCompletions(
            state,
            upstream,
            recorder,
            subjects=subjects,
            capture=settings.capture,
            max_body_bytes=settings.max_body_bytes,
            now=now,
        )
        # A class instance, so that Starlette hands it the bare ASGI call.
        app.router.routes.insert(0, Route(chat.PATH, endpoint, methods=["POST"]))
        follow = state.follow(poll_s=settings.poll_s, refresh_s=settings.refresh_s)
        stack.push_async_callback(_ended, asyncio.create_task(follow))
        yield


def _spool(
    settings: GatewaySettings, cipher: Cipher | None, now: Callable[[], datetime]
) -> SpoolWriter:
    return SpoolWriter(
        settings.spool,
        settings.worker,
        durability=settings.durability,
        quota=settings.spool_quota,
        reserve=settings.spool_reserve,
        cipher=cipher,
        now=now,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
