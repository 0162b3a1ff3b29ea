"""The story: serve, collect demonstrations, learn, pass the gate, swap under traffic."""

import asyncio
import json
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from learner.api.client import LearnerClient, LearnerDown
from learner.cli.demo.memory import MemoryMeter
from learner.cli.demo.report import Figures, Times, collect, print_report
from learner.cli.demo.traffic import Clients, Flow
from learner.cli.demo.world import ALIAS, World, build_world, furnish, load_world
from learner.cli.house import House
from learner.cli.up import announce, stop_signal
from learner.errors import LearnerError
from learner.settings import load

Result = TypeVar("Result")

BEFORE = 200
"""Requests answered before anything is learnt."""
AFTER_S = 5.0
"""Full traffic goes on this long after the swap."""
SWAP_WORKERS = 8
COUNTS = "select adapter, count(*) from invocations group by 1"
TURN_TIMEOUT_S = 1800.0


class DemoFailed(LearnerError):
    """The story did not end as it should."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    data: Path | None
    base: Path | None
    home: Path
    demonstrations: int
    port: int
    keep: bool


@dataclass(slots=True)
class Clock:
    """How long each phase took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.time()
        yield
        self.seconds[name] = time.time() - begun


def tell(options: Options, json_file: Path | None) -> None:
    """Run the demo. Raises LearnerError or ServingError when it fails."""
    console = Console(highlight=False)
    clock = Clock()
    with clock.phase("world"):
        world = _world(options, console)
    config_path = furnish(
        options.home, world, demonstrations=options.demonstrations, port=options.port
    )
    figures = asyncio.run(Story(options, world, config_path, console, clock).run())
    if json_file is not None:
        json_file.write_text(json.dumps(figures.as_json(), indent=1) + "\n")
    if problem := figures.problem():
        raise DemoFailed(problem)


def _world(options: Options, console: Console) -> World:
    if options.data is not None and options.base is not None:
        return load_world(options.data, options.base)
    console.print("[bold]The world[/]: a help desk with its tiny base model, built once")
    return build_world(options.home / "world")


class Story:
    """One run of the demo."""

    def __init__(
        self,
        options: Options,
        world: World,
        config_path: Path,
        console: Console,
        clock: Clock,
    ) -> None:
        self._options = options
        self._world = world
        self._config = load(config_path)
        self._config_path = config_path
        self._console = console
        self._clock = clock
        self._learner = LearnerClient(self._config.learner_socket)
        self._evaluating = asyncio.Event()

    async def run(self) -> Figures:
        """Everything, from the first process to the table."""
        stop = stop_signal()
        meter = MemoryMeter()
        meter.start()
        begun = time.time()
        async with House(self._config, self._config_path, notify=announce) as house:
            await _unless(stop, house.ready(), "starting")
            self._clock.seconds["start"] = time.time() - begun
            key = house.secret or ""
            clients = Clients(house.url, key, ALIAS, self._world.tools)
            figures = await _unless(stop, self._loop(clients), "the loop")
            await clients.close()
            await meter.stop()
            figures.peak_rss_mb = meter.peak_mb
            total = {"total": time.time() - self._clock.started}
            figures.seconds = self._clock.seconds | dict(figures.seconds) | total
            print_report(self._console, figures)
            self._farewell(house.url, key)
            if self._options.keep:
                await stop.wait()
        return figures

    async def _loop(self, clients: Clients) -> Figures:
        world, wanted = self._world, self._options.demonstrations
        self._headline(f"{BEFORE} requests to `{ALIAS}`, answered by the base")
        first = world.traffic[: max(BEFORE, wanted)]
        with self._clock.phase("traffic"):
            answers = await clients.ask_all(first, concurrency=SWAP_WORKERS)
        self._headline(f"{wanted} demonstrations as feedback: what the right answer was")
        for answer, sample in zip(answers[:wanted], first[:wanted], strict=True):
            if answer.error:
                raise DemoFailed(f"a request failed before anything was learnt: {answer.error}")
            await clients.demonstrate(answer, sample.reference_answer)
        last_feedback = time.time()
        self._headline("The scheduler sees them and starts a turn; traffic keeps flowing")
        flow = Flow(clients, world.traffic[len(first) :])
        flow.start()
        turn, moved = await self._follow(flow, clients)
        await asyncio.sleep(AFTER_S if turn["state"] == "promoted" else 0)
        await flow.stop()
        times = Times(last_feedback=last_feedback, moved=moved)
        return await asyncio.to_thread(collect, self._learner, turn, clients.ledger, times)

    async def _follow(self, flow: Flow, clients: Clients) -> tuple[Mapping[str, Any], float | None]:
        """Tell of the turn until it ends; towards the verdict, raise traffic to the full.

        The ended turn, and when the alias was seen to move, if it did.
        """
        watch = asyncio.create_task(self._moved(clients))
        try:
            turn = await self._until_ended(flow)
            seen = turn["state"] == "promoted" and self._evaluating.is_set()
            return turn, await watch if seen else None
        finally:
            watch.cancel()

    async def _moved(self, clients: Clients) -> float:
        """When the alias was seen to move. Asks only from the evaluation on: it costs."""
        await self._evaluating.wait()
        return await clients.alias_moved()

    async def _until_ended(self, flow: Flow) -> Mapping[str, Any]:
        """The turn, once it ended, told as it goes."""
        seen = 0
        deadline = time.time() + TURN_TIMEOUT_S
        while time.time() < deadline:
            await asyncio.sleep(0.1)
            try:
                turns = await asyncio.to_thread(self._learner.turns, 1)
                if not turns:
                    continue
                events = await asyncio.to_thread(self._learner.events, turns[0]["id"], after=seen)
            except LearnerDown:
                continue  # it is being started again, and will resume the turn
            for event in events:
                seen = event["seq"]
                self._tell(event)
            if turns[0]["phase"] == "evaluate":
                flow.workers, flow.pause_s = SWAP_WORKERS // 4, 0.1
                self._evaluating.set()
            if turns[0]["verdict"]:
                flow.workers, flow.pause_s = SWAP_WORKERS, 0.0
            if turns[0]["state"] != "running":
                return turns[0]
        raise DemoFailed(f"the turn did not end within {TURN_TIMEOUT_S:.0f} s")

    def _tell(self, event: Mapping[str, Any]) -> None:
        data = event["data"] or {}
        step, total = data.get("step"), data.get("total_steps")
        # A training step every second would bury the rest.
        if step is not None and total and step % max(1, total // 6) and step != total:
            return
        elapsed = time.time() - self._clock.started
        style = "red" if event["level"] == "error" else ""
        self._console.print(
            f"[dim]{elapsed:5.0f} s[/]  {event['phase']:8}  {event['message']}", style=style
        )

    def _headline(self, text: str) -> None:
        elapsed = time.time() - self._clock.started
        self._console.print(f"[dim]{elapsed:5.0f} s[/]  [bold]{text}[/]")

    def _farewell(self, url: str, key: str) -> None:
        # As it was called, so that the lines can be pasted where there is no activated venv.
        ratchet, config = sys.argv[0], f"--config {self._config_path}"
        tell = partial(self._console.print, soft_wrap=True, markup=False)
        if self._options.keep:
            tell(f"\nIt keeps running, until Ctrl-C: base_url {url}, key {key}")
        else:
            tell(f"\nIt all stays in {self._config_path.parent}. To serve it again:")
            tell(f"  {ratchet} up {config}")
            tell(f"  base_url {url}, key {key}")
        tell("To look around:")
        tell(f"  {ratchet} log tail {config}")
        tell(f"  {ratchet} turns {config}")
        tell(f'  {ratchet} log sql {config} "{COUNTS}"')


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Result], what: str) -> Result:
    """The result of ``work``; DemoFailed when Ctrl-C comes first."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        raise DemoFailed(f"stopped during {what}")
    stopped.cancel()
    return task.result()
