"""How one worker is right now, for its page in /metrics."""

import os
from collections.abc import Mapping

import psutil

from gateway.capacity import Capacity
from gateway.fleet import Fleet
from gateway.recorder import Recorder
from gateway.state import State
from gateway.telemetry import Vitals

_process = psutil.Process(os.getpid())


def vitals(
    state: State, fleet: Fleet, capacity: Capacity, recorder: Recorder, *, limit: int
) -> Vitals:
    """As of now; ``limit`` is the capacity's. Reads plain numbers: any thread may call it."""
    return Vitals(
        in_flight=capacity.running,
        capacity=limit,
        memory_bytes=_process.memory_info().rss,
        state_age_s=state.age_s,
        records_dropped=recorder.dropped,
        engines={
            engine.engine_id: (fleet.calls(engine.engine_id), fleet.benched(engine.engine_id))
            for engine in state.snapshot.engines
        },
    )


def urls(state: State) -> Mapping[str, str]:
    """Where the engines are, by id."""
    return {engine.engine_id: engine.url for engine in state.snapshot.engines}
