"""Which browsers' pages may call: cross-origin resource sharing, for both sides of the gateway.

FastAPI's side has Starlette's middleware, which also answers preflights for the hot paths.
Answers on the hot paths get the same headers from here, one look-up a request.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.http.exchange import Headers

EXPOSED = (
    "openai-processing-ms",
    "retry-after",
    "x-ratchet-adapter",
    "x-ratchet-alias",
    "x-ratchet-engine",
    "x-ratchet-overhead-ms",
    "x-ratchet-version",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
)
"""The headers of our answers that a page may read."""

_METHODS = ("GET", "POST", "DELETE")
_ANY = "*"
_NOTHING: Headers = []


@dataclass(frozen=True, slots=True)
class Cors:
    """The rule for one gateway. Pages send keys themselves, never cookies."""

    origins: frozenset[str]
    _answers: dict[bytes, Headers] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rest = [
            (b"access-control-expose-headers", ", ".join(EXPOSED).encode()),
            (b"vary", b"Origin"),
        ]
        answers = {
            origin.encode(): [(b"access-control-allow-origin", origin.encode()), *rest]
            for origin in self.origins
        }
        object.__setattr__(self, "_answers", answers)

    @classmethod
    def of(cls, origins: Iterable[str]) -> "Cors":
        """The rule that a configuration names."""
        return cls(frozenset(origins))

    def headers(self, origin: bytes | None) -> Headers:
        """What an answer to a request with this ``Origin`` says. To be copied, not changed."""
        if origin is None or not self._answers:
            return _NOTHING
        return self._answers.get(_ANY.encode()) or self._answers.get(origin, _NOTHING)

    def install(self, app: FastAPI) -> None:
        """Let these pages call what FastAPI serves, and answer the preflights of every path."""
        if self.origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=sorted(self.origins),
                allow_methods=_METHODS,
                allow_headers=[_ANY],
                expose_headers=EXPOSED,
                max_age=600,
            )
