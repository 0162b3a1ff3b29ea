"""What can go wrong while serving, and whose fault it is.

ServingError
├── EngineError
│   ├── EngineUnavailable   the engine is down, starting or too slow: try again later
│   └── EngineRefused       the engine answered and said no: the request is at fault
├── ArtifactInvalid         an adapter that vLLM cannot serve safely: the trainer's fault
├── ProbeFailed             an adapter that loaded but does not change the answers
├── DatabaseUnusable        no driver for the database of the state: the operator's fault
├── LaunchError             vLLM cannot be started as configured: the operator's fault
└── RegistryError
    ├── UnknownAlias        no such alias is declared
    ├── UnknownVersion      the alias has no such adapter version
    ├── StaleStage          the version is not in the stage the move starts from
    └── NotResident         an engine does not have the adapter loaded and probed yet
"""


class ServingError(Exception):
    """Root of this package's errors."""


class EngineError(ServingError):
    """A vLLM engine did not do what it was asked."""


class EngineUnavailable(EngineError):
    """The engine is down, starting, or did not answer in time. Retrying later may help."""


class EngineRefused(EngineError):
    """The engine answered with an error; ``status`` is its HTTP status. Retrying will not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"vLLM answered {status}: {message}")
        self.status = status
        self.message = message


class ArtifactInvalid(ServingError):
    """The adapter directory holds something vLLM cannot serve safely."""


class ProbeFailed(ServingError):
    """The adapter loaded without an error but does not behave as itself."""


class DatabaseUnusable(ServingError):
    """The driver for that kind of database is not installed."""


class LaunchError(ServingError):
    """vLLM cannot be started as configured."""


class RegistryError(ServingError):
    """The registry refused a move."""


class UnknownAlias(RegistryError):
    """No such alias is declared in ratchet.yaml."""


class UnknownVersion(RegistryError):
    """The alias has no such adapter version."""


class StaleStage(RegistryError):
    """The version is not in the stage that the move starts from; somebody else moved it."""


class NotResident(RegistryError):
    """Some healthy engine does not answer as this adapter yet, or there is no engine at all.

    Nothing moved. Trying again helps, unless the message says that the adapter failed.
    """
