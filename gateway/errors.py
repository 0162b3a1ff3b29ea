"""What can go wrong between a client and an engine, and whose fault it is.

GatewayError                 carries the HTTP status and OpenAI's error fields
├── InvalidRequest      400  the body is not what the endpoint takes
├── Unauthorized        401  no key, or one we do not know
├── Forbidden           403  the key may not do this
│   └── ModelForbidden  403  the key may not use this model
├── ModelNotFound       404  no alias of that name
├── NotFound            404  the log holds no such thing of this tenant
├── TooSlow             408  the request did not arrive in time
├── Conflict            409  not with what is there already
├── TooLarge            413  the body is over the limit
├── GuardBlocked        400  a guard refused the request or its answer
├── RateLimited         429  too much in too short a time, or at once
├── BudgetSpent         429  the key's budget is used up
├── Overloaded          503  the gateway is at capacity, or the tenant over its share
├── Unavailable         503  no engine can answer for this model right now
├── TimedOut            504  the engine took longer than it may
├── StateUnavailable    503  the database of keys and aliases does not answer
├── RecordFailed        503  the answer could not be logged, so it is not given
└── LogUnavailable      503  the process that owns the log does not answer
SpoolError                   the spool could not take a record
StoreError                   the log's DuckDB file could not be opened or read
├── StoreLocked              another process owns the file
├── StoreBroken              DuckDB gave up on the file; reopening it may help
├── StoreFull                its disk is full down to the reserve; the spool waits
└── BadQuery                 not a single SELECT, or one that DuckDB refuses
LimitsUnusable               keys' use cannot be counted where the settings say
GuardUnusable                a guard cannot be asked as it is configured
SandboxUnusable              this machine cannot sandbox code
CodeInvalid                  a file to be sandboxed does not load
CallFailed                   sandboxed code gave no answer
CipherError                  encrypted data that the key does not open
KeyUnavailable               the encryption key is not to be had, or is no key
CostMapInvalid               the file with models' prices cannot be read
ImportFailed                 a file to import is not what it should be
BadRow                       one row of it is not; the others are imported
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.log.record import Verdict


class GatewayError(Exception):
    """Root of the errors a client sees; ``gateway.api.envelope`` turns them into HTTP."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        """When to come back; it goes out as ``Retry-After``, in whole seconds, rounded up, and as
        ``retry-after-ms``, which OpenAI's clients prefer."""


class InvalidRequest(GatewayError):
    """The body is not what the endpoint takes; ``param`` names the field."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(GatewayError):
    """No API key was sent, or one we do not know."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known and may not do this: its scopes or its models do not cover it."""

    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"


class ModelForbidden(Forbidden):
    """The key may not use this model. OpenAI says it with this code."""

    code = "model_not_found"


class ModelNotFound(GatewayError):
    """No alias of that name is configured."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class NotFound(GatewayError):
    """The log holds no such thing, or not of this tenant."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class TooLarge(GatewayError):
    """The request body is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class TooSlow(GatewayError):
    """The request did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class Conflict(GatewayError):
    """What is asked for does not go with what is there already."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class GuardBlocked(GatewayError):
    """A guard refused the request, or the answer to it.

    ``verdicts`` are all of its stage up to it; ``body`` is what it looked at: what guards before
    it took out is not in there.
    """

    status = 400
    type = "invalid_request_error"
    code = "content_filter"

    def __init__(self, message: str, *, verdicts: "Sequence[Verdict]", body: bytes) -> None:
        super().__init__(message)
        self.verdicts = verdicts
        self.body = body


class RateLimited(GatewayError):
    """Too many requests or tokens in a window, or too many requests at once."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    rates: "Sequence[tuple[bytes, bytes]]" = ()
    """``x-ratelimit-*`` of whose limit it is, where they are known."""


class BudgetSpent(GatewayError):
    """The key's budget of money or tokens is used up."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class Overloaded(GatewayError):
    """The gateway is at capacity, or the tenant over its share of it. The client should retry."""

    status = 503
    type = "server_error"
    code = "overloaded"


class TimedOut(GatewayError):
    """The engine took longer than it may."""

    status = 504
    type = "server_error"
    code = "engine_timeout"


class Unavailable(GatewayError):
    """No engine can answer for this model right now. The client should retry."""

    status = 503
    type = "server_error"
    code = "engine_unavailable"


class StateUnavailable(GatewayError):
    """The database of keys, aliases and engines does not answer. The client should retry."""

    status = 503
    type = "server_error"
    code = "state_unavailable"


class RecordFailed(GatewayError):
    """The answer could not be logged. What is not recorded is not given."""

    status = 503
    type = "server_error"
    code = "log_unavailable"


class LogUnavailable(GatewayError):
    """The learner, which owns the log, does not answer; what was sent is safe in the spool."""

    status = 503
    type = "server_error"
    code = "log_unavailable"


class SpoolError(Exception):
    """The spool could not take a record: disk full, or its directory is gone."""


class StoreError(Exception):
    """The log's DuckDB file could not be opened or read."""


class StoreLocked(StoreError):
    """Another process owns the log's file."""


class StoreBroken(StoreError):
    """DuckDB gave up on the file: a full disk at a checkpoint, or damage. Reopen, re-ingest."""


class StoreFull(StoreError):
    """The log's disk is full down to the reserve. What is spooled waits until there is room."""


class BadQuery(StoreError):
    """Not a single SELECT, or one that DuckDB refuses."""


class LimitsUnusable(Exception):
    """Keys' use cannot be counted there: no permission, another version's file, a bad URL."""


class GuardUnusable(Exception):
    """A header names a variable that is not set, a file is no guard, or there is no sandbox."""


class SandboxUnusable(Exception):
    """This machine cannot sandbox code; the message says what to do about it."""


class CodeInvalid(Exception):
    """A file to be sandboxed does not load. The message starts with the file and the line."""


class CallFailed(Exception):
    """Sandboxed code raised, was too slow or too big, or died: its fault, and it stays outside.

    The message quotes nothing of what it was given.
    """


class CipherError(ValueError):
    """Encrypted data that the key does not open: damaged, or another key's."""


class KeyUnavailable(Exception):
    """The encryption key is not 32 bytes, or the command that prints it failed."""


class CostMapInvalid(Exception):
    """The operator's cost map is missing, no JSON, or has an entry that is no price."""


class ImportFailed(Exception):
    """A file to import is not what it should be, or an export cannot be written."""


class BadRow(ValueError):
    """One row of a file to import is not what it should be. The message is its reason."""
