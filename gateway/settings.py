"""Everything an operator can change about one gateway worker."""

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Read once, in ``__main__``, from ``GATEWAY_*`` variables."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: PositiveInt = 8000
    """Port to listen on; all workers of a machine share it."""

    database: str = "sqlite:///data/state.db"
    """URL of the state: keys, aliases, engines."""

    spool: Path = Path("data/spool")
    """Where this worker's segments go."""

    worker: str = "w0"
    """Name of this worker, the first part of its segments' names."""

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
