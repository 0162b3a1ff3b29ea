"""The gate: from a comparison to a verdict. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from learner.evaluation.compare import Comparison
from learner.sections import GateSection


class Decision(StrEnum):
    """What the gate says of a candidate."""

    PROMOTE = "promote"  # better by at least min_gain, and the interval excludes no gain
    REJECT = "reject"  # the interval excludes a gain of min_gain
    INCONCLUSIVE = "inconclusive"  # neither; more held-out samples would tell


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and why."""

    decision: Decision
    comparison: Comparison
    reason: str


def judge(comparison: Comparison, gate: GateSection) -> Verdict:
    """The verdict on one comparison. Same numbers, same verdict."""
    gain = comparison.gain
    interval = f"[{comparison.low:+.3f}, {comparison.high:+.3f}]"
    if comparison.high < gate.min_gain:
        reason = f"a gain of {gate.min_gain} is outside {interval}"
        return Verdict(Decision.REJECT, comparison, reason)
    if comparison.low > 0 and gain >= gate.min_gain:
        reason = f"gain {gain:+.3f} {interval} on {comparison.n} held-out samples"
        return Verdict(Decision.PROMOTE, comparison, reason)
    reason = (
        f"gain {gain:+.3f} {interval}: {comparison.n} held-out samples "
        f"detect a gain of {comparison.mde:.3f} at best"
    )
    return Verdict(Decision.INCONCLUSIVE, comparison, reason)
