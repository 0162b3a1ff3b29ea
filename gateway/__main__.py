"""``python -m gateway``: one worker. Several share a port; the kernel spreads connections."""

import logging
import math
import os
import socket
import sys
from datetime import UTC, datetime
from functools import partial

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError

from gateway.app import create_app
from gateway.errors import CostMapInvalid, KeyUnavailable
from gateway.http.door import Door
from gateway.http.server import HotProtocol
from gateway.log.cipher import Keyring
from gateway.log.subject import SubjectKey
from gateway.settings import GatewaySettings

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
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.host, settings.port))
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
    uvicorn.Server(config).run(sockets=[listener])


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
