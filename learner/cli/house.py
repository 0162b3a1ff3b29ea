"""All roles on one machine, supervised: what ``ratchet up`` and ``ratchet demo`` run."""

import asyncio
import fcntl
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from gateway.errors import GuardUnusable
from gateway.guards import Guards
from gateway.keys import EVERYTHING, KeyStore
from gateway.log.spool import Durability
from gateway.model import ModelOptions
from gateway.settings import GatewaySettings
from learner.errors import ConfigError
from learner.policy import engine_specs, policies
from learner.sections import served_base
from learner.settings import RatchetConfig
from serving.database import open_database
from serving.launch import EngineSpec, this_machine
from serving.preflight import check_all
from serving.registry import Registry
from serving.settings import AgentSettings, EngineSettings
from serving.supervisor import ChildEvent, Command, Supervisor, end_orphans

GRACE_S = 40.0
"""Longer than the gateway's own drain, so that running answers finish."""

logger = logging.getLogger(__name__)


class House:
    """Starts the engines' agents, the learner and the gateway's workers; stops them in reverse.

    The gateway goes first when stopping, so that running answers still have their engine, and
    the learner after it, so that what they left in the spool is ingested.
    """

    def __init__(
        self,
        config: RatchetConfig,
        config_path: Path,
        *,
        notify: Callable[[ChildEvent], None] = lambda _: None,
    ) -> None:
        self.config = config
        self._config_path = config_path.resolve()
        self._notify = notify
        self._stack = AsyncExitStack()
        self.secret: str | None = None
        """The API key made at the first start; None when there were keys already."""

    @property
    def url(self) -> str:
        """What clients use as ``base_url``."""
        host = "127.0.0.1" if self.config.gateway.host == "0.0.0.0" else self.config.gateway.host  # noqa: S104
        return f"http://{host}:{self.config.gateway.port}/v1"

    async def __aenter__(self) -> Self:
        # It holds what clients said, and sockets that answer whoever reaches them.
        self.config.data.mkdir(parents=True, exist_ok=True)
        self.config.data.chmod(0o700)
        async with AsyncExitStack() as stack:
            stack.enter_context(_only_one(self.config.data / "run" / "up.lock"))
            await asyncio.to_thread(self._prepare)
            await _check_guards(self.config)
            for command in self._commands():
                supervisor = Supervisor(command, grace_s=GRACE_S, notify=self._notify)
                await stack.enter_async_context(supervisor)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        # An agent that had to be killed could not end its engine.
        await asyncio.to_thread(self._end_orphans)

    async def ready(self) -> None:
        """Wait until every alias can be answered; a first start may download its base."""
        health = self.url.removesuffix("/v1") + "/health/ready"
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(health) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass  # the gateway is still starting
                await asyncio.sleep(0.2)

    def _prepare(self) -> None:
        """Everything that can be refused is refused here, before anything heavy starts."""
        config = self.config
        self._end_orphans()
        _check_port(config.gateway.host, config.gateway.port, "gateway.port")
        _check_environment(config)
        if config.bases:
            machine = this_machine()
            check_all(engine_specs(config), machine, os.environ)
            for policy in policies(config).values():
                check_all([policy.workbench], machine, os.environ)
        database = open_database(config.database)
        registry = Registry.open(config.database)
        for model in config.models:
            if model.base:
                served = served_base(model.base)
                registry.declare(model.alias, model.base, served, datetime.now(UTC))
        keys = KeyStore(database)
        if not keys.active():
            _, self.secret = keys.create(
                "first", tenant="default", at=datetime.now(UTC), scopes=EVERYTHING
            )
        registry.close()
        database.dispose()

    def _end_orphans(self) -> None:
        for pid_file in (self.config.data / "run").glob("*.pid"):
            end_orphans(pid_file)

    def _commands(self) -> list[Command]:
        """Every role, in the order of starting."""
        config = self.config
        agents = [self._agent(spec) for spec in engine_specs(config)]
        learner = self._command(
            "learner", ("-m", "learner", "--config", str(self._config_path)), {}
        )
        workers = [
            self._command(
                f"gateway-{index}",
                ("-m", "gateway"),
                {**gateway_environment(config), "GATEWAY_WORKER": f"w{index}"},
            )
            for index in range(config.gateway.workers)
        ]
        return [*agents, learner, *workers]

    def _agent(self, spec: EngineSpec) -> Command:
        config = self.config
        settings = AgentSettings(
            database_url=config.database,
            run_dir=config.data / "run",
            engine=EngineSettings(
                name=spec.name,
                base=spec.base,
                served_name=spec.served_name,
                port=spec.port,
                max_loras=spec.max_loras,
                max_cpu_loras=spec.max_cpu_loras,
                max_lora_rank=spec.max_lora_rank,
                args=dict(spec.args),
                env=dict(spec.env),
            ),
        )
        file = config.data / "run" / f"{spec.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(settings.model_dump_json(indent=1))
        return self._command(f"serving-{spec.name}", ("-m", "serving", "--config", str(file)), {})

    def _command(self, name: str, arguments: tuple[str, ...], env: dict[str, str]) -> Command:
        data = self.config.data
        return Command(
            name=name,
            argv=(sys.executable, *arguments),
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            log=data / "logs" / f"{name}.log",
            pid_file=data / "run" / f"{name}.pid",
        )


def gateway_environment(config: RatchetConfig) -> dict[str, str]:
    """What ratchet.yaml means for a gateway worker."""
    said = config.gateway
    settings = GatewaySettings(
        host=said.host,
        port=said.port,
        database=config.database,
        spool=config.spool,
        durability=Durability(config.log.durability),
        spool_quota=config.log.spool_quota,
        spool_reserve=config.log.reserve,
        best_effort=frozenset(config.log.best_effort),
        subject_key=config.subject_key,
        learner=config.learner_socket,
        metrics=config.metrics,
        capture={policy.alias: policy.capture for policy in config.policies},
        models=_options(config),
        cost_map=said.cost_map,
        limits=config.limits,
        capacity=said.capacity,
        cors=said.cors,
        telemetry=said.telemetry,
        run=config.run,
        upstream_timeout_s=said.answer_timeout.total_seconds(),
        max_body_bytes=said.max_body,
        header_timeout_s=said.header_timeout.total_seconds(),
        body_timeout_s=said.body_timeout.total_seconds(),
        idle_timeout_s=said.idle_timeout.total_seconds(),
    )
    given: dict[str, object] = settings.model_dump(mode="json", include=settings.model_fields_set)
    return {
        f"GATEWAY_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }


def _options(config: RatchetConfig) -> dict[str, ModelOptions]:
    """What is special about each model; nothing is about most, and those cost least to route."""
    plain = ModelOptions()
    return {model.alias: model.options for model in config.models if model.options != plain}


class _only_one:  # noqa: N801 - used as a function
    """Holds a lock file, so that two houses never share one data folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ConfigError(
                f"another `ratchet up` runs on {self._path.parent.parent}; stop it first, or "
                "give this one another `data` folder"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _check_environment(config: RatchetConfig) -> None:
    """Secrets come from the environment only: providers' keys, the password of Redis."""
    named = [
        (f"models.{number}.provider.api_key_env", model.provider.api_key_env)
        for number, model in enumerate(config.models)
        if model.provider and model.provider.api_key_env
    ]
    if "://" in config.gateway.limits:
        variables = re.findall(r"\$\{?(\w+)", config.gateway.limits)
        named += [("gateway.limits", variable) for variable in variables]
    for where, name in named:
        if not os.environ.get(name):
            raise ConfigError(f"{where}: {name} is not set; export it first")


async def _check_guards(config: RatchetConfig) -> None:
    """Each must be able to be asked: its variables set, its file loaded in a sandbox."""
    try:
        guards = Guards(_options(config), os.environ)
        try:
            await guards.start()
        finally:
            await guards.close()
    except GuardUnusable as error:
        raise ConfigError(str(error)) from error


def _check_port(host: str, port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror}); "
                f"set {setting} to a free one"
            ) from error
