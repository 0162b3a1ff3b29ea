"""Everything an operator can change about one gateway worker."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.log.spool import Durability

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

    poll_s: PositiveFloat = 0.02
    """How often to look for a change of state: how late an alias can flip."""

    refresh_s: PositiveFloat = 2.0
    """How often to read the state even without a change, to notice engines gone silent."""

    upstream_timeout_s: PositiveFloat = 600.0
    """How long one answer may take."""

    upstream_connections: PositiveInt = 1024
    """Connections to engines held at most."""

    max_body_bytes: PositiveInt = 8 << 20
    """The largest request body taken."""

    drain_s: PositiveInt = 30
    """How long running answers may take to finish after SIGTERM."""
