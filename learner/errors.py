"""What can go wrong while learning, and whose fault it is.

LearnerError
├── ConfigError        ratchet.yaml is wrong: the operator's fault
├── LearnerDown        no learner listens on the socket
├── GradingError       a grader could not decide: never the model's fault, the sample stays ungraded
├── DatasetError       the log does not hold what the policy wants, or a snapshot is damaged
├── TrainingError      a training job failed; its directory says why
├── SwapError          a gated candidate could not be served; the alias stays where it is
├── EvaluationError    too few samples could be compared for a verdict
└── IllegalMove        a turn cannot go from its state to the one asked for
"""


class LearnerError(Exception):
    """Root of this package's errors."""


class ConfigError(LearnerError):
    """ratchet.yaml is wrong. The message names the field and says what is allowed."""


class LearnerDown(LearnerError):
    """No learner listens on the socket, or it went before its answer was whole."""


class GradingError(LearnerError):
    """A grader could not decide. The sample stays ungraded and is counted."""


class DatasetError(LearnerError):
    """The log does not hold what the policy wants, or a snapshot is damaged."""


class TrainingError(LearnerError):
    """A training job failed. The message names its directory and its last event."""


class SwapError(LearnerError):
    """A gated candidate could not be served. It is rejected, and the alias stays where it is."""


class EvaluationError(LearnerError):
    """Too few samples could be compared to give a verdict."""


class IllegalMove(LearnerError):
    """A turn cannot go from its state to the one asked for."""
