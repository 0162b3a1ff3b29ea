"""The gateway under cuts, kills and revocations; ``make chaos-gateway`` is longer."""

import asyncio
from pathlib import Path

from tests.chaos.gateway.storm import Weather
from tests.chaos.gateway.trial import trial
from tests.integration.conftest import free_port

WEATHERS = [
    Weather(3000, engine_kills_s=0.7),
    Weather(1000, engine_kills_s=1.0, worker_kills_s=0.7),
]


def test_what_is_metered_is_what_engines_sent_whatever_happens(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(4)]

    figures = asyncio.run(trial(tmp_path, ports=ports, seed=3, weathers=WEATHERS))

    cut, killed = figures["storms"]
    assert figures["problems"] == []
    assert cut["tokens_in_usage"] == cut["tokens_in_ledger"]
    assert cut["tokens_in_ledger"]["completion"] > 10_000
    assert cut["revocations"] > 0
    assert {"unheard", "midway", "at the end"} <= cut["cuts"].keys()
    assert {"200", "400", "401", "429"} <= cut["statuses"].keys()
    assert not cut["kills"].keys().isdisjoint({"e0", "e1", "e2"})
    assert not killed["kills"].keys().isdisjoint({"w0", "w1"})
    assert figures["calls"]["acked"] > 1000
