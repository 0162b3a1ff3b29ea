"""Did a load change behaviour? Several adapters loaded "successfully" and answered as the base."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving.engine import MOST_PROBED
from serving.errors import ArtifactInvalid, ProbeFailed

SAME = 1e-4
"""Below this largest difference of log-probabilities two models are one and the same."""

TOLERANCE = 0.15
"""How far, on average, vLLM may be from the trainer: it computes in bf16, with other kernels."""

_MAX_TOKENS = MOST_PROBED


@dataclass(frozen=True, slots=True)
class Reference:
    """``logprobs[i]`` is log p(token i+1 | tokens 0..i): one less than there are tokens."""

    prompt_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    def as_json(self) -> bytes:
        """The content of ``probe.json``."""
        return json.dumps(
            {"prompt_token_ids": list(self.prompt_token_ids), "logprobs": list(self.logprobs)}
        ).encode()


class Scores(Protocol):
    """What a probe needs of an engine."""

    async def prompt_logprobs(self, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probability of each prompt token after the first. EngineError as the engine does."""
        ...


def read_reference(path: Path) -> Reference | None:
    """The trainer's log-probabilities; None when it left none. ArtifactInvalid if malformed."""
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text())
        reference = Reference(
            tuple(int(token) for token in raw["prompt_token_ids"]),
            tuple(float(value) for value in raw["logprobs"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactInvalid(f"{path} is not a probe: {error!r}") from error
    tokens = reference.prompt_token_ids
    if not 2 <= len(tokens) <= _MAX_TOKENS or len(reference.logprobs) != len(tokens) - 1:
        raise ArtifactInvalid(
            f"{path} needs 2 to {_MAX_TOKENS} tokens and one logprob less than tokens"
        )
    if not all(math.isfinite(value) and value <= 0 for value in reference.logprobs):
        raise ArtifactInvalid(f"{path} holds something that is no log-probability")
    return reference


def judge(
    base: Sequence[float],
    base_again: Sequence[float],
    adapter: Sequence[float],
    reference: Reference | None,
) -> str | None:
    """Why the adapter is not itself, from what base and adapter say of one prompt; None if it is.

    Pure. The base is heard twice, because under traffic its own answers wander a little: the
    adapter must differ by more than that. Agreement with the trainer is a mean, because a
    single rare token may be far off in bf16.
    """
    if len(adapter) != len(base) or not all(math.isfinite(value) for value in adapter):
        return "its answers are not finite"
    if _furthest(adapter, base) <= max(SAME, 2 * _furthest(base, base_again)):
        return "it answers as the base does"
    if reference is not None:
        pairs = zip(adapter, reference.logprobs, strict=True)
        error = sum(abs(ours - theirs) for ours, theirs in pairs) / len(adapter)
        if error > TOLERANCE:
            return f"its log-probabilities are {error:.3f} off the trainer's (at most {TOLERANCE})"
    return None


def prompt_of(vocabulary: int, length: int = 24) -> tuple[int, ...]:
    """A prompt for any model of that many tokens: the same everywhere, spread over all."""
    return tuple((7 + index * 7919) % vocabulary for index in range(length))


async def probe(
    engine: Scores,
    *,
    base: str,
    adapter: str,
    reference: Reference | None,
    prompt: tuple[int, ...],
) -> None:
    """Ask base and adapter about one prompt; ProbeFailed when the adapter is not itself.

    Three short requests; the one to the adapter also warms it up. ``prompt`` is used when
    there is no reference. EngineError as the engine raises it.
    """
    tokens = reference.prompt_token_ids if reference else prompt
    told_base = await engine.prompt_logprobs(base, tokens)
    told_adapter = await engine.prompt_logprobs(adapter, tokens)
    fault = judge(told_base, await engine.prompt_logprobs(base, tokens), told_adapter, reference)
    if fault is not None:
        raise ProbeFailed(f"{adapter}: {fault}")


def _furthest(ones: Sequence[float], others: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(ones, others, strict=True))
