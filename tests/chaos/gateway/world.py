"""A house to storm: two gateway workers, the owner of the log, three engines, keys and routes."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from gateway.keys import EVERYTHING, Budget, Key, KeyStore, Limits, Window
from gateway.log.cost import Price
from serving.artifact import Artifact
from serving.database import open_database
from serving.registry import EngineReport, EngineState, Registry
from tests.chaos.victims import Victim

PRICE = Price(input=1.0, cached_input=0.1, output=2.0)
HELPDESK, SPARE, WATCHER, PINNED = "helpdesk", "spare", "watcher", "helpdesk@v2"
BASE, SMALL = "base", "small"
TENANTS = ("acme", "globex")
ENDLESS = 10**15
BUDGETS = (Budget(Window.TOTAL, tokens=ENDLESS, money=1e6),)
CONFIG = f"""
data: .
models:
- {{alias: {HELPDESK}, base: {BASE}}}
- {{alias: {SPARE}, base: {SMALL}}}
- {{alias: {WATCHER}, base: {SMALL}}}
log: {{reserve: 0}}
"""
KINDS: dict[str, tuple[Limits, tuple[Budget, ...]]] = {
    "free": (Limits(), ()),
    "wide": (Limits(10**7, 10**10, 10**4), BUDGETS),
    "rare": (Limits(requests_per_minute=600), BUDGETS),
    "terse": (Limits(tokens_per_minute=200_000), BUDGETS),
    "narrow": (Limits(concurrency=2), BUDGETS),
    "poor": (Limits(), (Budget(Window.TOTAL, tokens=150_000, money=0.2),)),
}
"""What the keys of each tenant may."""


class Engine(Victim):
    """One engine's process: it kills itself between two steps of its own, when it is told to."""

    def kill(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} died by itself; see {self._output}")
        self._process.send_signal(signal.SIGUSR1)
        self._process.wait(30)
        self.kills += 1


@dataclass(frozen=True, slots=True)
class Holder:
    """A key and its secret."""

    key: Key
    secret: str


@dataclass(slots=True)
class World:
    """Everything on disk and every process. ``keys`` are all that there ever were."""

    folder: Path
    ports: Sequence[int]
    """The workers', then the engines'."""
    seed: int
    registry: Registry
    store: KeyStore
    workers: list[Victim] = field(default_factory=list)
    engines: dict[str, Engine] = field(default_factory=dict)
    states: dict[str, EngineState] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    admins: list[Holder] = field(default_factory=list)
    adapters: dict[str, frozenset[str]] = field(default_factory=dict)
    """By base: the served names that its engines hold."""
    live: dict[str, str] = field(default_factory=dict)
    """Served names by what answers to them: an alias or a version."""

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, ports: Sequence[int], seed: int) -> Iterator[Self]:
        """All of it, started."""
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'state.db'}"
        (folder / "ratchet.yaml").write_text(CONFIG)
        with ExitStack() as stack:
            registry = Registry.open(url)
            stack.callback(registry.close)
            database = open_database(url)
            stack.callback(database.dispose)
            world = cls(folder, ports, seed, registry, KeyStore(database))
            world._declare()
            world._describe(url)
            world._go_live()
            for tenant in TENANTS:
                world.admins.append(world.make("admin", tenant, scopes=EVERYTHING))
            for victim in (*world.engines.values(), world._owner(), *world.workers):
                stack.enter_context(victim)
            yield world

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def engine_ports(self) -> dict[str, int]:
        return dict(zip(self.engines, self.ports[1:], strict=True))

    @property
    def limits(self) -> Path:
        return self.folder / "limits"

    @property
    def ledgers(self) -> list[Path]:
        return [self.folder / f"{name}.ledger" for name in self.engines]

    def make(self, name: str, tenant: str, **rights: object) -> Holder:
        """A new key."""
        key, secret = self.store.create(name, tenant=tenant, at=datetime.now(UTC), **rights)  # type: ignore[arg-type]
        self.keys[key.id] = key
        return Holder(key, secret)

    def revoke(self, holder: Holder) -> None:
        self.store.revoke(holder.key.id, at=datetime.now(UTC))

    def report(self, name: str, state: EngineState | None = None) -> None:
        """What the engine's agent says of it: something new, or the same again."""
        state = self.states[name] = state or self.states[name]
        base = SMALL if name == "e2" else BASE
        url = f"http://127.0.0.1:{self.engine_ports[name]}"
        at = datetime.now(UTC)
        self.registry.report(EngineReport(name, url, base, state, self.adapters[base], at))

    def _declare(self) -> None:
        """Aliases, and adapters as the learner and the agents would bring them about."""
        at = datetime.now(UTC)
        for alias, base in ((HELPDESK, BASE), (SPARE, SMALL), (WATCHER, SMALL)):
            self.registry.declare(alias, base, base, at)
        for alias, base, names in (
            (HELPDESK, BASE, (HELPDESK, PINNED)),
            (WATCHER, SMALL, (WATCHER,)),
        ):
            for number, name in enumerate(names):
                artifact = Artifact(f"{alias[0]}{number}" * 32, self.folder / name, 8, base)
                added = self.registry.add(alias, artifact, at=at, lineage={})
                self.registry.gate(alias, added.version, verdict_id="v", at=at)
                self.live[name] = added.served_name
                held = self.adapters.get(base, frozenset())
                self.adapters[base] = held | {added.served_name}

    def _go_live(self) -> None:
        for name in self.engines:
            self.report(name, EngineState.READY)
        for alias in (HELPDESK, WATCHER):
            self.registry.promote(alias, 1, at=datetime.now(UTC))

    def _describe(self, url: str) -> None:
        """The engines and the workers, not started yet."""
        for number, name in enumerate(("e0", "e1", "e2")):
            base = SMALL if name == "e2" else BASE
            told = [name, str(self.ports[1 + number]), str(self.folder / f"{name}.ledger")]
            self.engines[name] = Engine(
                name,
                "tests.chaos.gateway.engine",
                *told, str(self.seed + number), base, *sorted(self.adapters[base]),
                output=self.folder / f"{name}.log",
            )  # fmt: skip
        price = PRICE.model_dump()
        models = {
            HELPDESK: {
                "arms": [{"to": PINNED, "weight": 0.3}],
                "shadow": {"to": WATCHER, "share": 0.2},
                "fallbacks": [SPARE],
                "price": price,
            },
            SPARE: {"price": price},
            WATCHER: {"price": price},
        }
        for number in range(2):
            self.workers.append(self._worker(f"w{number}", database=url, models=json.dumps(models)))

    def _worker(self, name: str, **settings: object) -> Victim:
        told = {
            "port": self.port,
            "worker": name,
            "spool": self.folder / "spool",
            "spool_reserve": 0,
            "subject_key": self.folder / "subject.key",
            "run": self.folder / "run",
            "limits": self.limits,
            "learner": self.folder / "run" / "learner.sock",
            "capacity": 96,
            "max_body_bytes": 100_000,
        } | settings
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in told.items()}
        return Victim(name, "gateway", output=self.folder / f"{name}.log", env=environment)

    def _owner(self) -> Victim:
        config = str(self.folder / "ratchet.yaml")
        output = self.folder / "learner.log"
        return Victim("learner", "learner", "--config", config, output=output)
