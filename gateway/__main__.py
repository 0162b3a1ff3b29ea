"""``python -m gateway``: one worker. Several share a port; the kernel spreads connections."""

import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gateway.app import create_app
from gateway.errors import (
    CostMapInvalid,
    GuardUnusable,
    KeyUnavailable,
    LimitsUnusable,
    SpoolError,
)
from gateway.http.door import Door
from gateway.http.server import HotProtocol
from gateway.log.cipher import Keyring
from gateway.log.subject import SubjectKey
from gateway.settings import GatewaySettings
from serving.errors import DatabaseUnusable

UNUSABLE = (
    CostMapInvalid,
    DatabaseUnusable,
    GuardUnusable,
    LimitsUnusable,
    SpoolError,
    SQLAlchemyError,
    OSError,
    ImportError,
    ValueError,
)
"""What the settings name cannot be worked with."""

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted; its own limit may be lower."""


def main() -> None:
    """Serve until SIGTERM, then finish what runs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = GatewaySettings()
        app = _app(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        setting, *inside = map(str, problem["loc"])
        where = ".".join([f"GATEWAY_{setting.upper()}", *inside])
        sys.exit(f"the gateway cannot start: {where}: {problem['msg']}")
    except (CostMapInvalid, KeyUnavailable, SettingsError) as error:
        sys.exit(f"the gateway cannot start: {error}")
    _take_descriptors()
    # uvicorn, done with what SIGTERM asked for, sends it on: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = _listener(settings)
    unusable = _told_apart(app)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(HotProtocol, Door(app.state, settings)),  # type: ignore[arg-type]
        ws="none",
        backlog=BACKLOG,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=math.ceil(settings.idle_timeout_s),
        timeout_graceful_shutdown=settings.drain_s,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit:  # uvicorn's way to say that start-up failed
        if unusable:
            sys.exit(f"the gateway cannot start: {_line(unusable[0])}")
        raise


def _take_descriptors() -> None:
    """All that the system would give: the soft limit is for programs that know no better."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listener(settings: GatewaySettings) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        sys.exit(f"the gateway cannot start: it cannot listen on {where}: {error.strerror}")
    return listener


def _told_apart(app: FastAPI) -> list[Exception]:
    """Where what the operator has to mend is put when start-up fails of it, without a traceback."""
    unusable: list[Exception] = []
    opened = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        async with AsyncExitStack() as stack:
            try:
                state = await stack.enter_async_context(opened(app))
            except UNUSABLE as error:
                unusable.append(error)
                raise
            yield state

    app.router.lifespan_context = lifespan  # type: ignore[assignment]
    logging.getLogger("uvicorn.error").addFilter(lambda _: not unusable)
    return unusable


def _line(error: Exception) -> str:
    """The first line, without SQLAlchemy's advice behind it."""
    if isinstance(error, SQLAlchemyError):
        said = error.orig if isinstance(error, DBAPIError) else error
        return f"GATEWAY_DATABASE: {said}".splitlines()[0]
    setting = "GATEWAY_DATABASE: " if isinstance(error, DatabaseUnusable) else ""
    return setting + str(error).splitlines()[0]


def _app(settings: GatewaySettings) -> FastAPI:
    keys = Keyring.from_environment(os.environ)
    return create_app(
        settings,
        subjects=SubjectKey.open(settings.subject_key),
        cipher=keys.spool if keys else None,
        now=lambda: datetime.now(UTC),
    )


if __name__ == "__main__":
    main()
