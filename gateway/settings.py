"""Everything an operator can change about one gateway worker."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.log.spool import Durability
from gateway.model import ModelOptions

COMMENT = "comment"
DEMONSTRATION = "demonstration"
PREFERENCE = "preference"
RESERVED = (COMMENT, DEMONSTRATION, PREFERENCE)
"""Names that mean something by themselves; no metric can be called so."""
REFERENCE = "reference"
"""What imports call a reference answer; clients give a demonstration instead."""


class Metric(BaseModel, frozen=True, extra="forbid"):
    """One metric that feedback may name."""

    type: Literal["boolean", "float"]
    level: Literal["inference", "episode"] = "inference"
    optimize: Literal["max", "min"] = "max"


class Capture(BaseModel, frozen=True, extra="forbid"):
    """What the log keeps of an answer beyond what clients see."""

    token_ids: bool = False
    logprobs: bool = False


class Cors(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which browsers' pages may call the gateway."""

    origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")], ...] = ()
    """``https://app.example.com``, as browsers say it: no slash at its end; or ``*``."""


class Telemetry(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is told of calls to OpenTelemetry; Prometheus' /metrics is always there."""

    endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """OTLP over HTTP, ``http://collector:4318``; nothing is exported where left out."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of calls whose span is exported when the caller's own trace does not decide."""
    content: bool = False
    """Whether spans hold what was said. It leaves the machine then."""


class GatewaySettings(BaseSettings):
    """Read once, in ``__main__``, from ``GATEWAY_*`` variables."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on; all workers of a machine share it."""

    database: str = "sqlite:///data/state.db"
    """URL of the state: keys, aliases, engines."""

    spool: Path = Path("data/spool")
    """Where this worker's segments go."""

    worker: str = "w0"
    """Name of this worker, the first part of its segments' names."""

    durability: Durability = Durability.INTERVAL
    """What a power cut may take of the spool."""

    spool_quota: NonNegativeInt = 10 << 30
    """What is not in the log yet takes this many bytes at most."""

    spool_reserve: NonNegativeInt = 1 << 30
    """Bytes of disk that the spool leaves free."""

    best_effort: frozenset[str] = frozenset()
    """Tasks answered even when the answer cannot be recorded."""

    subject_key: Path = Path("data/subject.key")
    """The key that end users' names are hashed with; made when it is missing."""

    learner: Path = Path("data/run/learner.sock")
    """Where the owner of the log answers."""

    metrics: dict[str, Metric] = Field(default_factory=dict)
    """The metrics that feedback may name; any name when there are none."""

    capture: dict[str, Capture] = Field(default_factory=dict)
    """What else the log keeps of an alias' answers."""

    models: dict[str, ModelOptions] = Field(default_factory=dict)
    """What is special about a model name; most need nothing."""

    cost_map: Path | None = None
    """Prices by model in LiteLLM's JSON format, for models without a price of their own."""

    limits: str = "data/run/limits"
    """Where keys' use is counted: a directory that all workers of a machine share, or
    redis://HOST:PORT (Redis or Valkey) for several machines."""

    capacity: PositiveInt = 512
    """Calls that this worker has under way at once; beyond it, 503."""

    cors: Cors = Cors()

    telemetry: Telemetry = Telemetry()

    run: Path = Path("data/run")
    """Where workers tell each other their counters."""

    poll_s: PositiveFloat = 0.02
    """How often to look for a change of state: how late an alias can flip."""

    refresh_s: PositiveFloat = 2.0
    """How often to read the state even without a change, to notice engines gone silent."""

    upstream_timeout_s: PositiveFloat = 600.0
    """How long one answer may take."""

    upstream_connections: PositiveInt = 1024
    """Connections to engines held at most."""

    connections: PositiveInt = 8192
    """Clients' connections held at most; fewer where the system gives fewer descriptors."""

    max_body_bytes: PositiveInt = 8 << 20
    """The largest request body taken."""

    header_timeout_s: PositiveFloat = 10.0
    """How long a request's headers may take to arrive."""

    body_timeout_s: PositiveFloat = 60.0
    """How long its body may take after them."""

    idle_timeout_s: PositiveFloat = 75.0
    """How long a connection may wait for its next request."""

    drain_s: PositiveInt = 30
    """How long running answers may take to finish after SIGTERM."""
