"""``ratchet.yaml``: one file says what is served and what is learnt."""

import os
from itertools import combinations
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from gateway.model import Guard, Guards, PythonGuard
from gateway.settings import REFERENCE, RESERVED, Metric
from learner.errors import ConfigError
from learner.explain import explain
from learner.references import checked
from learner.sections import (
    EngineSection,
    GatewaySection,
    LogSection,
    ModelSection,
    PolicySection,
    Section,
    ServingSection,
    WorkbenchSection,
)


class RatchetConfig(Section):
    """The whole file."""

    data: Path = Path("data")
    """Where everything is kept; relative to the file."""
    gateway: GatewaySection = GatewaySection()
    serving: ServingSection = ServingSection()
    workbench: WorkbenchSection = WorkbenchSection()
    models: Annotated[tuple[ModelSection, ...], Field(min_length=1)]
    policies: tuple[PolicySection, ...] = ()
    log: LogSection = LogSection()
    metrics: dict[Annotated[str, Field(pattern=r"^\S{1,128}$")], Metric] = Field(
        default_factory=dict
    )
    """The metrics that feedback may name; any name when there are none."""

    @field_validator("metrics")
    @classmethod
    def _free(cls, metrics: dict[str, Metric]) -> dict[str, Metric]:
        if taken := sorted({REFERENCE, *RESERVED} & metrics.keys()):
            raise ValueError(f"{taken[0]} means something of its own; call the metric otherwise")
        return metrics

    @model_validator(mode="after")
    def _consistent(self) -> "RatchetConfig":
        aliases = [model.alias for model in self.models]
        twice = sorted({alias for alias in aliases if aliases.count(alias) > 1})
        if twice:
            raise ValueError(f"alias {twice[0]!r} is declared twice")
        names = {base: Path(base).name for base in self.bases}
        for base, name in names.items():
            if list(names.values()).count(name) > 1:
                raise ValueError(f"two bases are called {name!r}; rename the folder of {base}")
        self._ports_differ()
        for policy in self.policies:
            rank = policy.training.lora.r
            if rank > min(self.serving.max_lora_rank, self.workbench.max_lora_rank):
                raise ValueError(
                    f"the policy of {policy.alias!r} trains rank {rank}; raise max_lora_rank "
                    "of serving and workbench to it"
                )
        learning = [policy.alias for policy in self.policies]
        for alias in learning:
            if alias not in aliases:
                raise ValueError(f"a policy names alias {alias!r}; declared are {aliases}")
            if next(model.base for model in self.models if model.alias == alias) is None:
                raise ValueError(f"a policy cannot teach {alias!r}: a provider answers for it")
            if learning.count(alias) > 1:
                raise ValueError(f"alias {alias!r} has two policies")
        return self

    def _ports_differ(self) -> None:
        bases = len(self.bases)
        taken = {
            "gateway.port": range(self.gateway.port, self.gateway.port + 1),
            "serving.port": _ports(self.serving, bases * self.serving.replicas),
            "workbench.port": _ports(self.workbench, bases),
        }
        for (one, these), (other, those) in combinations(taken.items(), 2):
            if these.start < those.stop and those.start < these.stop:
                raise ValueError(
                    f"{one} and {other} must differ by the engines that take the ports after "
                    f"them: {these.start} to {these.stop - 1}, {those.start} to {those.stop - 1}"
                )

    @property
    def database(self) -> str:
        """URL of the state."""
        return f"sqlite:///{self.data / 'state.db'}"

    @property
    def spool(self) -> Path:
        return self.data / "spool"

    @property
    def log_url(self) -> str:
        """Where the log is: an absolute path, or a DuckLake's URL."""
        if self.log.url.startswith("ducklake:postgres:"):
            return self.log.url
        scheme = "ducklake:sqlite:" if self.log.url.startswith("ducklake:sqlite:") else ""
        return scheme + str(self.data / self.log.url.removeprefix(scheme))

    @property
    def lake(self) -> str:
        """Where a DuckLake keeps its Parquet files."""
        given = self.log.data_path or "lake"
        return given if "://" in given else str(self.data / given)

    @property
    def subject_key(self) -> Path:
        """The key that end users' names are hashed with."""
        return self.data / "subject.key"

    @property
    def run(self) -> Path:
        """What lasts as long as the house runs."""
        return self.data / "run"

    @property
    def learner_socket(self) -> Path:
        """Where the learner answers the command line."""
        return self.run / "learner.sock"

    @property
    def limits(self) -> str:
        """Where keys' use is counted: a file, or a URL."""
        given = self.gateway.limits
        return os.path.expandvars(given) if "://" in given else str(self.data / given)

    @property
    def bases(self) -> tuple[str, ...]:
        """Each base once, in the order of the models; engines of its own serve each."""
        return tuple(dict.fromkeys(model.base for model in self.models if model.base))

    def base_of(self, alias: str) -> str:
        """The base of an alias that has one."""
        return next(model.base for model in self.models if model.base and model.alias == alias)


def load(path: Path) -> RatchetConfig:
    """Read ``ratchet.yaml``; paths in it are relative to it. Raises ConfigError, one line."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; write one or name another with --config"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        config = RatchetConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, RatchetConfig)}") from error
    try:
        return checked(_anchored(config, path.resolve().parent))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _ports(section: EngineSection, engines: int) -> range:
    return range(section.port, section.port + engines)


def _anchored(config: RatchetConfig, folder: Path) -> RatchetConfig:
    """The same with absolute paths. A base that is no directory beside the file is a hub name."""

    def base(name: str) -> str:
        local = folder / name
        return str(local.resolve()) if local.is_dir() else name

    def guard(one: Guard) -> Guard:
        if isinstance(one, PythonGuard):
            return one.model_copy(update={"file": folder / one.file})
        return one

    def model(one: ModelSection) -> ModelSection:
        before, after = (tuple(map(guard, some)) for some in (one.guards.before, one.guards.after))
        guards = Guards(before=before, after=after)
        return one.model_copy(update={"base": one.base and base(one.base), "guards": guards})

    policies = tuple(
        p.model_copy(update={"held_out": folder / p.held_out})
        if isinstance(p.held_out, Path)
        else p
        for p in config.policies
    )
    cost_map = config.gateway.cost_map and folder / config.gateway.cost_map
    return config.model_copy(
        update={
            "data": (folder / config.data).resolve(),
            "gateway": config.gateway.model_copy(update={"cost_map": cost_map}),
            "models": tuple(map(model, config.models)),
            "policies": policies,
        }
    )
