"""The sections of ``ratchet.yaml``, each what one part of the house can be told."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from gateway.log.filter import Filter
from gateway.model import ModelOptions
from gateway.settings import Capture, Cors, Telemetry
from learner.errors import ConfigError
from learner.launch.job import GrpoHyperparameters, Lora, SftHyperparameters
from learner.rewards import from_config

_LAKES = ("ducklake:sqlite:", "ducklake:postgres:")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    """``90``, ``"90s"``, ``"15m"``, ``"6h"``, ``"1d"``."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)
        if found is None:
            raise ValueError("must be a number with a unit: 90s, 15m, 6h or 1d")
        return timedelta(seconds=float(found.group(1)) * _UNITS[found.group(2)])
    return value


def _bytes(value: Any) -> Any:
    """``1048576``, ``"512MB"``, ``"10GB"``, ``"1TB"``."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", value, re.IGNORECASE)
        if found is None:
            raise ValueError("must be a number of bytes, or one with a unit: 512MB, 10GB")
        return int(float(found.group(1)) * 1024 ** " KMGT".index(found.group(2).upper() or " "))
    return value


def _kept(value: Any) -> Any:
    """A duration after which things are deleted: 90 alone could be meant as days."""
    if not isinstance(value, str):
        raise ValueError("must be a number with a unit: 15m, 6h or 90d")
    duration = _duration(value)
    if not duration:
        raise ValueError("must be longer than nothing; leave it out to keep everything")
    return duration


def _reward(config: dict[str, Any]) -> dict[str, Any]:
    """The same, once it is known to make a grader."""
    try:
        from_config(config)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return config


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Kept = Annotated[timedelta, BeforeValidator(_kept)]
Wait = Annotated[Duration, Field(gt=timedelta(0))]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class GatewaySection(Section):
    """Where clients connect, and what they are held to."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    workers: PositiveInt = 1
    """Processes that share the port."""
    capacity: PositiveInt = 512
    """Calls that one worker has under way at once; beyond it, 503."""
    limits: Annotated[str, Field(pattern=r"^(rediss?://\S+|[^:\s]+)$")] = "run/limits"
    """Where keys' use is counted: a file, relative to ``data``, for one machine; for several,
    ``redis://HOST:PORT`` (Redis or Valkey), in which ``$NAME`` stands for an environment
    variable."""
    cost_map: Path | None = None
    """Prices by model in LiteLLM's JSON format, for models without a price of their own."""
    cors: Cors = Cors()
    telemetry: Telemetry = Telemetry()
    answer_timeout: Wait = timedelta(minutes=10)
    """How long one answer may take, where its model says nothing else."""
    header_timeout: Wait = timedelta(seconds=10)
    """How long a request's headers may take to arrive."""
    body_timeout: Wait = timedelta(seconds=60)
    """How long its body may take after them."""
    idle_timeout: Wait = timedelta(seconds=75)
    """How long a connection may wait for its next request."""
    max_body: Annotated[Bytes, Field(gt=0)] = 8 << 20
    """The largest request body taken."""


class EngineSection(Section):
    """How a vLLM is started."""

    port: Annotated[int, Field(ge=1, le=65535)]
    """Loopback port of the first engine; the others take the ports after it."""
    max_loras: PositiveInt = 8
    """Adapters in one batch at most."""
    max_cpu_loras: PositiveInt = 32
    """Adapters registered at most."""
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    """The largest rank of an adapter."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further flags of vLLM, without the dashes: ``tool-call-parser: hermes``."""
    env: dict[str, str] = Field(default_factory=dict)
    """Further environment variables of vLLM. ``{engine}`` in a value stands for the engine's
    number, counted from 0 over all bases: ``CUDA_VISIBLE_DEVICES: "{engine}"``."""


class WorkbenchSection(EngineSection):
    """The second vLLM, for rollouts and evaluation; it runs only while a turn needs it."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8200


class ServingSection(EngineSection):
    """The vLLM that answers clients; only gated adapters enter it."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8100
    replicas: PositiveInt = 1
    """Engines of each base. An alias moves to an adapter when all of them hold it."""


def served_base(base: str) -> str:
    """The name engines serve a base under: a hub name as it is, of a directory its last part."""
    return Path(base).name if Path(base).is_dir() else base


class ModelSection(ModelOptions):
    """One model name that clients may use: a base of ours, or a provider's model."""

    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """What clients put in ``model``."""
    base: Annotated[str, Field(min_length=1)] | None = None
    """Directory of the base model, or its name on a hub."""

    @model_validator(mode="after")
    def _one_who_answers(self) -> "ModelSection":
        if (self.base is None) == (self.provider is None):
            raise ValueError("give either base or provider")
        return self

    @property
    def options(self) -> ModelOptions:
        """What the gateway is told of it; the base is in the registry."""
        return ModelOptions(**{name: getattr(self, name) for name in ModelOptions.model_fields})


class WhenSection(Section):
    """When a turn starts: whichever comes first."""

    every: Duration | None = None
    """At the latest this long after the last turn, if there is anything new."""
    new_samples: PositiveInt | None = None
    """As soon as this many new samples are in the log."""

    @model_validator(mode="after")
    def _something(self) -> "WhenSection":
        if self.every is None and self.new_samples is None:
            raise ValueError("give every, new_samples or both")
        return self


class GateSection(Section):
    """What a candidate must show before an alias moves to it."""

    min_gain: float = 0.02
    """Least gain in mean held-out reward over the incumbent."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Two-sided error probability of the gain's interval."""
    max_samples: PositiveInt = 1000
    """Held-out samples compared at most."""


class RetentionSection(Section):
    """How long the log keeps what; for ever where left out."""

    bodies: Kept | None = None
    """After this, requests and responses go, and samples of dataset snapshots; the rest of the row
    stays. Files are rid of them within a week."""
    rows: Kept | None = None
    """After this, the whole row goes, and its feedback."""

    @model_validator(mode="after")
    def _in_order(self) -> "RetentionSection":
        if self.bodies and self.rows and self.bodies > self.rows:
            raise ValueError("bodies cannot be kept longer than rows")
        return self


class LogSection(Section):
    """Where the log is, and how hard it holds on to what it is told."""

    url: str = "log.duckdb"
    """A file, relative to ``data``; or ``ducklake:sqlite:FILE``, ``ducklake:postgres:DSN``."""
    data_path: str | None = None
    """Where a DuckLake keeps its Parquet; ``lake/`` in ``data`` where left out."""
    durability: Literal["none", "interval", "group"] = "interval"
    """What a power cut may take: what the system had not written yet (none), the last 100 ms
    (interval), nothing (group: every answer waits for the disk). A killed process loses nothing
    in any of them."""
    best_effort: tuple[str, ...] = ()
    """Tasks (or aliases) answered even when the answer cannot be recorded; the log then says how
    many it lacks. All others are refused with 503."""
    spool_quota: Bytes = 10 << 30
    """What is not in the log yet takes this much disk at most."""
    reserve: Bytes = 1 << 30
    """Disk space that spool and log leave free."""
    retention: RetentionSection = RetentionSection()

    @field_validator("url")
    @classmethod
    def _somewhere(cls, url: str) -> str:
        is_lake = url.startswith(_LAKES) and url not in _LAKES
        if not is_lake and (not url or re.match(r"ducklake:|[a-z][a-z0-9+]*://", url)):
            raise ValueError("must be a file, ducklake:sqlite:FILE or ducklake:postgres:DSN")
        return url


class TrainingSection(Section):
    """Hyperparameters; ``auto`` where left out."""

    lora: Lora = Lora()
    sft: SftHyperparameters = SftHyperparameters()
    grpo: GrpoHyperparameters = GrpoHyperparameters()
    seed: int = 7


class PolicySection(Section):
    """One learning loop: which alias, by which reward, when, and through which gate."""

    alias: str
    """The alias whose traffic is learnt from and which moves."""
    tenant: str = "default"
    """Whose keys' traffic is learnt from; nobody else's is."""
    where: Filter = Filter()
    """Which of the alias' calls are learnt from, in the log's filter language."""
    capture: Capture = Capture()
    """What else the log keeps of the alias' answers."""
    reward: Annotated[dict[str, Any], AfterValidator(_reward)]
    """What a good answer is."""
    when: WhenSection
    method: Literal["auto", "sft", "rft"] = "auto"
    """auto: demonstrations first (SFT), then rewards (RFT)."""
    held_out: Annotated[float, Field(gt=0, lt=1)] | Path = 0.2
    """The share of prompts kept for the gate, chosen by hash, or a JSONL file of RFT rows."""
    gate: GateSection = GateSection()
    training: TrainingSection = TrainingSection()
    max_tokens: PositiveInt = 256
    """Longest answer in rollouts and evaluation, in tokens."""
