"""What all calls of one worker share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.capacity import Capacity
from gateway.cors import Cors
from gateway.fleet import Fleet
from gateway.guards import Guards
from gateway.http.client import Pool
from gateway.http.exchange import Headers, Leg, Listener
from gateway.limits import Limiter
from gateway.log.answer import Usage
from gateway.log.subject import SubjectKey
from gateway.model import ModelOptions
from gateway.prices import Prices
from gateway.providers import Providers
from gateway.recorder import Exchange, Recorder
from gateway.routing import Target
from gateway.settings import Capture
from gateway.state import State
from gateway.surface import Hidden, Surface
from gateway.telemetry import Telemetry

_NOTHING = Capture()
"""Also where the log keeps no bodies, and for providers, who are asked nothing of vLLM's own."""
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts that a call is made with."""

    state: State
    fleet: Fleet
    pool: Pool
    providers: Providers
    capacity: Capacity
    limiter: Limiter
    guards: Guards
    prices: Prices
    recorder: Recorder
    telemetry: Telemetry
    cors: Cors
    subjects: SubjectKey
    models: Mapping[str, ModelOptions]
    capture: Mapping[str, Capture]
    timeout_s: float
    """How long one answer may take where its model does not say."""
    now: Callable[[], datetime]

    def cost(self, target: Target, usage: Usage) -> float | None:
        """What an answer costs; None when its model has no price."""
        model = target.model
        if target.adapter is not None:
            route = self.state.snapshot.routes.get(target.alias)
            if route is None:  # its alias went while it was answered
                return None
            model = route.served_base
        price = self.prices.of(target.alias, model)
        if price is None:
            return None
        details = usage.prompt_tokens_details
        return price.of(
            usage.prompt_tokens or 0,
            usage.completion_tokens or 0,
            (details and details.cached_tokens) or 0,
        )

    def limit_s(self, target: Target) -> float:
        """How long its answer may take."""
        return target.timeout_s or self.timeout_s

    def post(
        self, surface: Surface, exchange: Exchange, trace: Headers, listener: Listener
    ) -> tuple[Leg, Hidden]:
        """Ask the target of ``exchange``; and what its client is not to see of the answer."""
        target, parsed = exchange.target, exchange.parsed
        limit, request_id = self.limit_s(target), exchange.request_id
        capture = _NOTHING
        if target.provider is None and parsed.store is not False:
            capture = self.capture.get(exchange.alias, _NOTHING)
        body, hidden = surface.rewritten(parsed, model=target.model, capture=capture)
        if target.provider is not None:
            leg = self.providers.open(
                target, surface.path, body, listener, timeout_s=limit, request_id=request_id
            )
            return leg, hidden
        lines = [_JSON, (b"x-request-id", request_id.encode()), *trace]
        return self.pool.post(
            target.url, surface.path, lines, body, listener, timeout_s=limit
        ), hidden
