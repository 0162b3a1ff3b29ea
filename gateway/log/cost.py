"""What an invocation cost, by its tokens."""

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

MILLION = 1_000_000


class Price(BaseModel):
    """What a million tokens cost, in whatever currency you count."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    input: NonNegativeFloat
    output: NonNegativeFloat
    cached_input: NonNegativeFloat | None = None
    """Prompt tokens read from the engine's cache; None: as ``input``."""

    def of(self, input_tokens: int, output_tokens: int, cached: int = 0) -> float:
        """The cost of one answer; ``cached`` of its input tokens came from the cache."""
        rate = self.input if self.cached_input is None else self.cached_input
        cached = min(cached, input_tokens)
        fresh = input_tokens - cached
        return (fresh * self.input + cached * rate + output_tokens * self.output) / MILLION
