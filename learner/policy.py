"""What one learning loop wants, with all it needs to know of its alias resolved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.errors import ConfigError
from learner.launch.job import (
    AUTO,
    EngineAddress,
    GrpoJob,
    Job,
    SftHyperparameters,
    SftJob,
)
from learner.sections import EngineSection, PolicySection, served_base
from learner.settings import RatchetConfig
from serving.launch import EngineSpec

WARM_START = 0.055
"""Loss, in nats a token, at which demonstrations are learnt well enough for RFT to take over.

RFT learns from the differences between answers to one prompt. At this loss a demonstrated call
of 25 tokens is sampled one time in four; a model that knows its demonstrations by heart gives
the same answer every time (72 to 94 % of groups taught nothing).
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of ratchet.yaml and the base it trains on."""

    section: PolicySection
    base: str
    workbench: EngineSpec

    @property
    def alias(self) -> str:
        return self.section.alias

    def stages(self) -> tuple[str, ...]:
        """Trained one on top of the other."""
        return {"auto": ("sft", "rft"), "sft": ("sft",), "rft": ("rft",)}[self.section.method]

    def job(self, stage: str, dataset: Path, start: Path | None) -> Job:
        """The training job of one stage, beginning at adapter ``start`` (None: a fresh one)."""
        training = self.section.training
        common: dict[str, Any] = {
            "base": Path(self.base),
            "init_adapter": start,
            "dataset": dataset,
            "lora": training.lora,
            "seed": training.seed,
        }
        if stage == "sft":
            return SftJob(**common, hyperparameters=self._sft())
        engine = EngineAddress(
            url=f"http://{self.workbench.host}:{self.workbench.port}",
            base_model=self.workbench.served_name,
        )
        longest = {"max_completion_tokens": self.section.max_tokens}
        return GrpoJob(
            **common,
            engine=engine,
            reward=self.section.reward,
            hyperparameters=training.grpo.model_copy(update=longest),
        )

    def _sft(self) -> SftHyperparameters:
        """Before RFT, demonstrations are a warm start: see WARM_START."""
        chosen = self.section.training.sft
        if chosen.until_loss == AUTO and "rft" in self.stages():
            return chosen.model_copy(update={"until_loss": WARM_START})
        return chosen


def policies(config: RatchetConfig) -> dict[str, Policy]:
    """Every policy, by alias."""
    return {
        section.alias: Policy(
            section=section,
            base=config.base_of(section.alias),
            workbench=workbench_spec(config, config.base_of(section.alias)),
        )
        for section in config.policies
    }


def local_base(base: str) -> Path:
    """The folder of a base: itself, or the hub's cache, which the engine has filled by now.

    Raises ConfigError when the cache does not hold it.
    """
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ConfigError(f"base {base} is neither a folder nor in the hub's cache") from error


def workbench_spec(config: RatchetConfig, base: str) -> EngineSpec:
    """How to start the workbench of ``base``."""
    number = config.bases.index(base)
    return _spec(config.workbench, base, name=f"workbench-{number}", number=number)


def engine_specs(config: RatchetConfig) -> tuple[EngineSpec, ...]:
    """How to start the clients' engines: the replicas of each base, bases in their order."""
    replicas = range(config.serving.replicas)
    placed = enumerate((base, replica) for base in config.bases for replica in replicas)
    return tuple(
        _spec(config.serving, base, name=f"engine-{Path(base).name}-{replica}", number=number)
        for number, (base, replica) in placed
    )


def _spec(section: EngineSection, base: str, *, name: str, number: int) -> EngineSpec:
    """One engine; ``number`` counts those of its section."""
    return EngineSpec(
        name=name,
        base=base,
        served_name=served_base(base),
        port=section.port + number,
        max_loras=section.max_loras,
        max_cpu_loras=section.max_cpu_loras,
        max_lora_rank=section.max_lora_rank,
        args=section.args,
        env={key: value.replace("{engine}", str(number)) for key, value in section.env.items()},
    )
