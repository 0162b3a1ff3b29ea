"""Rewards: graders that say how good an answer is, made from configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from learner.errors import ConfigError
from learner.rewards.grader import Grade, Grader
from learner.rewards.tool_call import ToolCall, Weights

__all__ = ["Grade", "Grader", "ToolCall", "ToolCallConfig", "Weights", "from_config"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ToolCallWeights(BaseModel):
    """What the parts of a tool call count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parses: Weight = 0.1
    name: Weight = 0.3
    arguments: Weight = 0.6


class ToolCallConfig(BaseModel):
    """``{"type": "tool_call", "weights": {...}}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["tool_call"]
    name: str = "tool_call"
    weights: ToolCallWeights = ToolCallWeights()

    def grader(self) -> Grader:
        weights = Weights(self.weights.parses, self.weights.name, self.weights.arguments)
        return ToolCall(weights, self.name)


CONFIGS: Mapping[str, type[ToolCallConfig]] = {"tool_call": ToolCallConfig}
"""The model of each ``type``: the discriminator of every grader's JSON."""


def from_config(config: Mapping[str, Any]) -> Grader:
    """The grader that ``config`` describes; ConfigError names the field that is wrong."""
    kind = config.get("type")
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise ConfigError(f"reward.type is {kind!r}; it must be one of: {', '.join(CONFIGS)}")
    try:
        return CONFIGS[kind].model_validate(config).grader()
    except ValidationError as error:
        raise ConfigError(_first(error)) from error
    except ValueError as error:
        raise ConfigError(f"reward: {error}") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in ("reward", *problem["loc"]))
    return f"{field}: {problem['msg']}"
