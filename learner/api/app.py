"""The learner's own address: a Unix socket that the gateway, the command line and the demo use."""

from typing import Any

from fastapi import FastAPI

from learner.api import completions, erasures, errors, log, turns, usage
from learner.api.owner import Owner
from learner.erasure import Erasures
from learner.jobs import TurnStore


def create_app(owner: Owner, forgetting: Erasures, learning: TurnStore) -> FastAPI:
    """The ASGI application over an open log and the turns' tables."""
    app = FastAPI(title="Ratchet learner")
    app.state.owner, app.state.erasures, app.state.turns = owner, forgetting, learning
    errors.install(app)
    for resource in (log, completions, erasures, usage, turns):
        app.include_router(resource.router)

    @app.get("/health")
    def health() -> dict[str, Any]:
        """A real query: a log that cannot answer is not healthy."""
        count = owner.log.rows("SELECT count(*) AS n FROM invocations")[0]["n"]
        return {"invocations": count, "trouble": owner.ingester.trouble}

    return app
