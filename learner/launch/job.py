"""A training job as written to ``job.json``: all that a trainer needs to know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from learner.errors import TrainingError

Auto = Literal["auto"]
AUTO: Auto = "auto"


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineAddress(_Wire):
    """The workbench vLLM that samples the rollouts."""

    url: str
    base_model: str
    """The name under which it serves the base."""


class Lora(_Wire):
    """The adapter's shape. Only what vLLM can serve: no biases, no heads, no embeddings."""

    r: Literal[1, 8, 16, 32, 64, 128, 256] = 16
    alpha: PositiveFloat = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class SftHyperparameters(_Wire):
    """How to learn from demonstrations; ``auto`` is resolved in ``learner.training.defaults``."""

    epochs: PositiveInt | Auto = AUTO
    """At most."""
    until_loss: PositiveFloat | Auto = AUTO
    """Stop after the first epoch whose mean loss (nats a token) fell below this."""
    batch_size: PositiveInt | Auto = AUTO
    learning_rate: PositiveFloat | Auto = AUTO
    max_length: PositiveInt = 4096
    """Tokens; longer demonstrations are left out and counted."""
    checkpoint_every: PositiveInt | Auto = AUTO
    """Steps."""


class GrpoHyperparameters(_Wire):
    """How to learn from rewards; ``auto`` is resolved in ``learner.training.defaults``."""

    steps: PositiveInt | Auto = AUTO
    prompts_per_step: PositiveInt | Auto = AUTO
    generations: Annotated[int, Field(ge=2)] = 8
    """Completions of one prompt, compared with each other."""
    learning_rate: PositiveFloat | Auto = AUTO
    temperature: PositiveFloat = 1.0
    max_completion_tokens: PositiveInt = 256
    micro_batch: PositiveInt | Auto = AUTO
    """Completions in memory at once while training."""
    checkpoint_every: PositiveInt | Auto = AUTO
    """Steps."""


class _Job(_Wire):
    base: Path
    """Directory of the base model."""
    init_adapter: Path | None = None
    """Directory of the LoRA adapter to start from; None starts a fresh one."""
    dataset: Path
    """Parquet snapshot (``learner.dataset.snapshot``); its ``train`` rows are trained on."""
    lora: Lora = Lora()
    """Shape of a fresh adapter; ``init_adapter`` keeps its own."""
    seed: NonNegativeInt = 7


class SftJob(_Job):
    """Supervised training on the samples that have a demonstration."""

    stage: Literal["sft"] = "sft"
    hyperparameters: SftHyperparameters = SftHyperparameters()


class GrpoJob(_Job):
    """Reinforcement on all samples that the reward can grade."""

    stage: Literal["grpo"] = "grpo"
    engine: EngineAddress
    reward: Mapping[str, Any]
    """What ``learner.rewards.from_config`` takes."""
    hyperparameters: GrpoHyperparameters = GrpoHyperparameters()


Job = SftJob | GrpoJob

_JOB: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="stage")])


def read_job(text: str | bytes) -> Job:
    """The job that ``job.json`` holds; TrainingError names the first field that is wrong."""
    try:
        return _JOB.validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise TrainingError(f"job.json: {field or 'file'}: {problem['msg']}") from error
