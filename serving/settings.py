"""What an operator can change about serving; read once, in ``__main__``."""

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from serving.launch import EngineSpec


class EngineSettings(BaseModel):
    """One vLLM."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "clients-0"
    """What reports and logs call it; unique among all engines of one database."""
    base: str
    """Folder or Hugging Face id of the base model."""
    served_name: str
    """The name under which the base is served."""
    host: str = "127.0.0.1"
    """Loopback or a private network, never a public address: vLLM guards few of its paths."""
    port: PositiveInt = 8001
    max_loras: PositiveInt = 8
    """Adapters in one batch: at least twice the live aliases."""
    max_cpu_loras: PositiveInt = 32
    """Adapters that the engine knows at once."""
    max_lora_rank: PositiveInt = 16
    """Highest rank of an adapter; one of vLLM's own list."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Any flag of vLLM, by its name without the dashes."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the vLLM process, over what it inherits."""
    python: str = sys.executable
    """The interpreter that has vLLM installed."""

    def spec(self) -> EngineSpec:
        """The engine to start. LaunchError when ``args`` holds what has a field of its own."""
        return EngineSpec(**self.model_dump())


class AgentSettings(BaseModel):
    """One agent: one engine, kept equal to the registry's wish."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    database_url: str
    """Where the registry lives."""
    run_dir: Path
    """Where the engine's log and process id are kept."""
    engine: EngineSettings
    poll_s: PositiveFloat = 0.1
    """How often the registry is asked whether anything changed; microseconds each."""
    reconcile_s: PositiveFloat = 1.0
    """How often the engine is asked how it is, and compared with the registry, anyway."""
    heartbeat_s: PositiveFloat = 2.0
    """How often the engine is reported although nothing changed."""
    drain_s: PositiveFloat = 60.0
    """How long an adapter that no longer answers stays loaded, for the streams that run."""
    hang_s: PositiveFloat = 60.0
    """How long an engine may be deaf before it is killed and started again."""
    grace_s: PositiveFloat = 25.0
    """How long running answers may take when the agent is stopped."""
