"""What an operator can say of one model name: who answers it, who else may, who watches."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from gateway.log.cost import Price

Name = Annotated[str, Field(pattern=r"^\S{1,256}$")]

_TAKEN = frozenset({"fallback", "incumbent", "pinned", "shadow"})
"""What the log's ``arm`` says of calls that no arm was drawn for."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Arm(_Options):
    """A share of the alias' traffic that somebody else answers."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] = "canary"
    to: Name
    """Any name that ``model`` could say: ``helpdesk@v8``, another alias, a base."""
    weight: Annotated[float, Field(gt=0, lt=1)]
    """Its share; what the arms leave is the incumbent's."""


class Shadow(_Options):
    """A share of the traffic that is also sent elsewhere. Its answers are logged, never given."""

    to: Name
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class HttpGuard(_Options):
    """Asks an HTTP endpoint."""

    type: Literal["http"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent along; ``$NAME`` stands for an environment variable."""
    timeout_s: PositiveFloat = 2.0
    on_error: Literal["block", "allow"] = "block"
    """What becomes of the call when the guard itself fails."""


class PythonGuard(_Options):
    """Calls ``guard(call)`` of a Python file, in a sandbox."""

    type: Literal["python"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    file: Path
    timeout_s: PositiveFloat = 2.0
    on_error: Literal["block", "allow"] = "block"
    """What becomes of the call when the guard itself fails."""


Guard = Annotated[HttpGuard | PythonGuard, Field(discriminator="type")]


class Guards(_Options):
    """Who looks at a call before the engine sees it, and at the answer before the client does."""

    before: tuple[Guard, ...] = ()
    after: tuple[Guard, ...] = ()
    """A streamed answer is held back until they have spoken."""


class Provider(_Options):
    """A model elsewhere, reached through litellm; never one of our own engines."""

    model: Annotated[str, Field(pattern=r"^[^/\s]+/\S+$")]
    """litellm's name for it: ``openai/gpt-5-mini``, ``anthropic/claude-sonnet-5``."""
    api_base: str | None = None
    api_key_env: str | None = None
    """The environment variable that holds the key; litellm's own choice where left out."""

    @property
    def name(self) -> str:
        """Whose model it is: ``openai``, ``anthropic``."""
        return self.model.partition("/")[0]


class ModelOptions(_Options):
    """One model name, beyond which base it has."""

    provider: Provider | None = None
    """Who answers when it is none of our engines."""
    fallbacks: tuple[Name, ...] = ()
    """Names that are tried in turn, before the first byte, when nobody can answer for this one."""
    arms: tuple[Arm, ...] = ()
    sticky: Literal["episode", "conversation", "user", "none"] = "episode"
    """What stays with one arm."""
    shadow: Shadow | None = None
    guards: Guards = Guards()
    timeout_s: PositiveFloat | None = None
    """How long one answer may take; the gateway's setting where left out."""
    price: Price | None = None
    """What its tokens cost; the cost map's price where left out, else the log's cost is NULL."""

    @model_validator(mode="after")
    def _leaves_an_incumbent(self) -> "ModelOptions":
        names = [arm.name for arm in self.arms]
        if sum(arm.weight for arm in self.arms) >= 1:
            raise ValueError("the arms' weights must add up to less than 1")
        if len(set(names)) < len(names) or not _TAKEN.isdisjoint(names):
            raise ValueError(
                f"arms need names of their own, other than {', '.join(sorted(_TAKEN))}"
            )
        return self
