"""The guards of every alias: asked in order, before the engine and before the client."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from gateway import model
from gateway.errors import GatewayError, GuardBlocked
from gateway.guards.ask import Asked, GuardFailed
from gateway.guards.http import Endpoint, Endpoints
from gateway.guards.python import Files, Function
from gateway.guards.verdict import Malformed, Stage, read
from gateway.log.record import Verdict

logger = logging.getLogger(__name__)

Fits = Callable[[bytes], None]
"""Whether what a guard puts in the place of a body can stand there; raises GatewayError."""

_UNKNOWN = msgspec.Raw(b"")
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Checked:
    """What the guards let through."""

    body: bytes
    verdicts: list[Verdict]


class _Question(msgspec.Struct, omit_defaults=True):
    stage: Stage
    alias: str
    tenant: str
    request: msgspec.Raw
    response: msgspec.Raw = _UNKNOWN


@dataclass(frozen=True, slots=True)
class _Guard:
    name: str
    on_error: Literal["block", "allow"]
    asked: Asked


@dataclass(frozen=True, slots=True)
class _Watch:
    before: tuple[_Guard, ...]
    after: tuple[_Guard, ...]


class Guards:
    """Those of one worker. Raises GuardUnusable when one cannot be asked as it is configured."""

    def __init__(self, models: Mapping[str, model.ModelOptions], env: Mapping[str, str]) -> None:
        self._endpoints = Endpoints()
        self._files = Files()
        self._failing: set[str] = set()
        self._watches = {
            alias: _Watch(
                tuple(self._made(options.guards.before, env)),
                tuple(self._made(options.guards.after, env)),
            )
            for alias, options in models.items()
            if options.guards.before or options.guards.after
        }

    async def start(self) -> None:
        """Load what is code. Raises GuardUnusable, which names the file and the line."""
        await self._files.start()

    def watches(self, alias: str) -> bool:
        """Whether anybody looks at the calls of this alias."""
        return alias in self._watches

    async def check_request(
        self, alias: str, tenant: str, request: bytes, *, fits: Fits
    ) -> Checked:
        """Ask those before. Raises GuardBlocked."""

        def question(body: bytes) -> _Question:
            return _Question("before", alias, tenant, msgspec.Raw(body))

        return await self._check(self._watches[alias].before, question, request, fits)

    async def check_answer(
        self, alias: str, tenant: str, request: bytes, answer: bytes, *, fits: Fits
    ) -> Checked:
        """Ask those after. Raises GuardBlocked."""
        asked = msgspec.Raw(request)

        def question(body: bytes) -> _Question:
            return _Question("after", alias, tenant, asked, msgspec.Raw(body))

        return await self._check(self._watches[alias].after, question, answer, fits)

    async def close(self) -> None:
        """Let go of what they are asked over."""
        await self._endpoints.close()
        await self._files.close()

    async def _check(
        self,
        guards: tuple[_Guard, ...],
        question: Callable[[bytes], _Question],
        body: bytes,
        fits: Fits,
    ) -> Checked:
        verdicts: list[Verdict] = []
        for guard in guards:
            verdict, replacement = await self._judged(guard, question(body), fits)
            verdicts.append(verdict)
            failed = verdict.action == "error"
            if verdict.action == "block" or (failed and guard.on_error == "block"):
                raise GuardBlocked(_told(verdict), verdicts=verdicts, body=body)
            body = body if replacement is None else replacement
        return Checked(body, verdicts)

    async def _judged(
        self, guard: _Guard, question: _Question, fits: Fits
    ) -> tuple[Verdict, bytes | None]:
        try:
            said = await guard.asked.ask(_encoder.encode(question))
            verdict, replacement = read(said, guard=guard.name, stage=question.stage)
            if replacement is not None:
                fits(replacement)
        except (GuardFailed, Malformed) as error:
            return self._failed(guard, question.stage, str(error)), None
        except GatewayError as error:
            why = f"what it gives instead does not do: {error.message}"
            return self._failed(guard, question.stage, why), None
        if guard.name in self._failing:
            self._failing.discard(guard.name)
            logger.info("the guard %s answers again", guard.name)
        return verdict, replacement

    def _failed(self, guard: _Guard, stage: Stage, why: str) -> Verdict:
        """Its fault, in the record each time and in the worker's log once."""
        if guard.name not in self._failing:
            self._failing.add(guard.name)
            logger.error("the guard %s failed: %s", guard.name, why)
        return Verdict(guard=guard.name, stage=stage, action="error", reason=why)

    def _made(self, guards: tuple[model.Guard, ...], env: Mapping[str, str]) -> Iterator[_Guard]:
        for guard in guards:
            asked: Asked
            if isinstance(guard, model.HttpGuard):
                asked = Endpoint(guard, self._endpoints, env)
            else:
                asked = Function(guard, self._files)
            yield _Guard(guard.name, guard.on_error, asked)


def _told(verdict: Verdict) -> str:
    """What the client hears. Why a guard failed is the operator's."""
    if verdict.action == "error":
        return f"The guard `{verdict.guard}` could not decide, so nothing goes through."
    what = "request" if verdict.stage == "before" else "answer"
    why = f": {verdict.reason}" if verdict.reason else "."
    return f"The {what} was blocked by the guard `{verdict.guard}`{why}"
