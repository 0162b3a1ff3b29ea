"""One gateway worker, put together."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from functools import partial

from fastapi import FastAPI
from starlette.routing import Route

from gateway.api import (
    envelope,
    feedback,
    health,
    keys,
    metrics,
    models,
    openapi,
    owner,
    scores,
)
from gateway.api.request_id import RequestId
from gateway.call import Calls, Worker
from gateway.capacity import Capacity
from gateway.cors import Cors
from gateway.fleet import Fleet
from gateway.guards import Guards
from gateway.http.asgi import Mounted
from gateway.http.client import Pool
from gateway.limits import open_limits
from gateway.log.cipher import Cipher
from gateway.log.spool import SpoolWriter
from gateway.log.subject import SubjectKey
from gateway.prices import Prices
from gateway.providers import Providers
from gateway.recorder import Recorder
from gateway.settings import GatewaySettings
from gateway.state import State
from gateway.surface import SURFACES
from gateway.telemetry import watched
from gateway.vitals import urls, vitals


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
    cors = Cors.of(settings.cors.origins)
    worker = partial(_worker, subjects=subjects, cipher=cipher, cors=cors, now=now)
    app = FastAPI(title="Ratchet", lifespan=worker)
    app.state.settings, app.state.now = settings, now
    envelope.install(app)
    cors.install(app)
    app.add_middleware(RequestId)
    for resource in (models, keys, feedback, scores, owner, health, metrics):
        app.include_router(resource.router)
    openapi.install(app)
    return app


@asynccontextmanager
async def _worker(
    app: FastAPI,
    *,
    subjects: SubjectKey,
    cipher: Cipher | None,
    cors: Cors,
    now: Callable[[], datetime],
) -> AsyncIterator[None]:
    """What is open while the application serves."""
    settings: GatewaySettings = app.state.settings
    async with AsyncExitStack() as stack:
        state = State.open(settings.database, now=now)
        stack.callback(state.close)
        spool = _spool(settings, cipher, now)
        stack.callback(spool.close)
        log_owner = owner.Owner(settings.learner)
        stack.push_async_callback(log_owner.close)
        recorder = Recorder(spool, best_effort=settings.best_effort)
        fleet = Fleet(now=time.monotonic, seed=secrets.token_bytes(8))
        capacity = Capacity(settings.capacity)
        limiter = open_limits(settings.limits, worker=settings.worker)
        stack.push_async_callback(limiter.close)
        state.tell(limiter.keep)
        telemetry, board = stack.enter_context(
            watched(
                settings,
                vitals=partial(vitals, state, fleet, capacity, recorder, limiter),
                urls=partial(urls, state),
                now=lambda: now().timestamp(),
            )
        )
        providers = Providers(settings.models, os.environ)
        stack.push_async_callback(providers.close)
        guards = Guards(settings.models, os.environ)
        stack.push_async_callback(guards.close)
        await guards.start()
        pool = Pool(connections=settings.upstream_connections)
        stack.callback(pool.close)
        calls = Calls(
            Worker(
                state=state,
                fleet=fleet,
                pool=pool,
                providers=providers,
                capacity=capacity,
                limiter=limiter,
                guards=guards,
                prices=Prices(settings.models, settings.cost_map),
                recorder=recorder,
                telemetry=telemetry,
                cors=cors,
                subjects=subjects,
                models=settings.models,
                capture=settings.capture,
                timeout_s=settings.upstream_timeout_s,
                now=now,
            )
        )
        stack.push_async_callback(calls.close)
        app.state.gateway, app.state.recorder, app.state.owner = state, recorder, log_owner
        app.state.limiter, app.state.board = limiter, board
        _serve(app, calls)
        follow = state.follow(poll_s=settings.poll_s, refresh_s=settings.refresh_s)
        stack.push_async_callback(_ended, asyncio.create_task(follow))
        yield


def _serve(app: FastAPI, calls: Calls) -> None:
    """Give calls what comes in by either front."""
    app.state.hot_paths = frozenset(SURFACES)
    app.state.accept, app.state.turns_away = calls.accept, calls.turns_away
    # A class instance, so that Starlette hands it the bare ASGI call.
    limit = app.state.settings.max_body_bytes
    mounted = Mounted(calls.accept, calls.turns_away, max_body_bytes=limit)
    app.router.routes[:0] = [Route(path, mounted, methods=["POST"]) for path in SURFACES]


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
