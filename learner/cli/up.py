"""``ratchet up``: the house, and on the screen what happens in it."""

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

import click

from learner.cli.house import House
from learner.cli.turns import event_line
from learner.jobs import TurnStore
from learner.settings import RatchetConfig, load
from serving.database import open_database
from serving.registry import Registry
from serving.supervisor import ChildEvent, ChildEventKind


def run_until_stopped(config_path: Path) -> None:
    """Run every role until Ctrl-C or SIGTERM; then let running answers finish."""
    asyncio.run(_run(load(config_path), config_path))


async def _run(config: RatchetConfig, config_path: Path) -> None:
    stop = stop_signal()
    async with House(config, config_path, notify=announce) as house:
        say(f"starting; logs are in {config.data / 'logs'}")
        if house.secret:
            say(f"API key, shown this once: {house.secret}")
        watch = asyncio.create_task(_watch(config))
        ready = asyncio.create_task(house.ready())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            await ready
            say(f"ready: base_url {house.url}, models {', '.join(m.alias for m in config.models)}")
        await stopped
        say("stopping; running answers finish first")
        watch.cancel()
        ready.cancel()
    say("stopped")


def stop_signal() -> asyncio.Event:
    """Set by Ctrl-C and SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def announce(event: ChildEvent) -> None:
    """Tell of a role that started, ended or will be started again."""
    if event.kind is ChildEventKind.EXITED:
        say(
            f"{event.name} ended (code {event.code}); starting it again in {event.delay_s:.1f} s. "
            f"Its log says why"
        )
    else:
        say(f"{event.name} {event.kind} (pid {event.pid})")


def say(text: str) -> None:
    """One line with the time."""
    click.echo(f"{datetime.now(UTC).astimezone():%H:%M:%S}  {text}")


async def _watch(config: RatchetConfig) -> None:
    """Tell of engines that change state and of turns as they go."""
    database = open_database(config.database)
    registry, turns = Registry.open(config.database), TurnStore(database)
    states: dict[str, str] = {}
    seen = {turn.id: _last(turns, turn.id) for turn in turns.recent(5)}
    while True:
        await asyncio.sleep(0.5)
        for engine in registry.engines(now=datetime.now(UTC)):
            if states.get(engine.engine_id) != engine.state:
                states[engine.engine_id] = engine.state
                say(f"{engine.engine_id} is {engine.state}")
        for turn in turns.recent(5):
            for event in turns.history(turn.id, after=seen.get(turn.id, 0)):
                seen[turn.id] = event["seq"]
                click.echo(event_line(event))


def _last(turns: TurnStore, turn_id: str) -> int:
    history = turns.history(turn_id)
    return history[-1]["seq"] if history else 0
