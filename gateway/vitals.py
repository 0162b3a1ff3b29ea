"""How one worker is right now, for its page in /metrics."""

import os
from collections.abc import Mapping

import psutil

from gateway.capacity import Capacity
from gateway.fleet import Fleet
from gateway.limits import Limiter
from gateway.recorder import Recorder
from gateway.state import State
from gateway.telemetry import Vitals

_process = psutil.Process(os.getpid())


def vitals(
    state: State, fleet: Fleet, capacity: Capacity, recorder: Recorder, limiter: Limiter
) -> Vitals:
    """As of now. Reads plain numbers: any thread may call it."""
    return Vitals(
        in_flight=capacity.running,
        capacity=capacity.limit,
        memory_bytes=_process.memory_info().rss,
        state_age_s=state.age_s,
        records_dropped=recorder.dropped,
        limits_unchecked=limiter.unchecked,
        engines={
            engine.engine_id: (fleet.calls(engine.engine_id), fleet.benched(engine.engine_id))
            for engine in state.snapshot.engines
        },
    )


def urls(state: State) -> Mapping[str, str]:
    """Where the engines are, by id."""
    return {engine.engine_id: engine.url for engine in state.snapshot.engines}
