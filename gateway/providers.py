"""Models elsewhere, through litellm; the only module that imports it.

litellm takes seconds to import and several hundred MB: it is loaded when a worker starts that has
such a model configured, and never otherwise. It is used as a library that asks once: retries,
fallbacks, time limits, logging and prices are ours.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, KeyUnavailable
from gateway.http.exchange import Leg, Listener
from gateway.model import ModelOptions, Provider
from gateway.routing import Target

logger = logging.getLogger(__name__)

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"

# Also a fence: litellm takes where to send a key (``api_base``) among the same keywords.
_CHAT = frozenset(
    {"frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_tokens"}
    | {"max_completion_tokens", "messages", "n", "parallel_tool_calls", "prediction"}
    | {"presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format"}
    | {"safety_identifier", "seed", "service_tier", "stop", "stream", "temperature", "tool_choice"}
    | {"tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"}
)
_EMBEDDINGS = frozenset({"dimensions", "encoding_format", "input", "user"})
_OURS = frozenset({"metadata", "model", "store", "stream_options"})
"""What a body says to us, not to a provider."""

_CLIENTS_FAULT = frozenset({400, 413, 422})
_PASSING = frozenset({408, 409, 429, *range(500, 600)})
"""What is over in a while, with another try or another provider."""


class Providers:
    """The providers of one worker. Raises KeyUnavailable when one's key is not in ``env``."""

    def __init__(self, models: Mapping[str, ModelOptions], env: Mapping[str, str]) -> None:
        configured = [options.provider for options in models.values() if options.provider]
        self._keys = dict(_keys(configured, env))
        self._litellm = _loaded() if configured else None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(  # noqa: PLR0913 - what the pool's ``post`` takes, of a target
        self,
        target: Target,
        surface_path: str,
        body: bytes,
        listener: Listener,
        *,
        timeout_s: float,
        request_id: str,
    ) -> Leg:
        """Ask a target that has a provider. The listener hears nothing before this returns.

        ``body`` is as an engine would get it; a stream always ends with an event of its usage
        alone. ``request_id`` becomes the answer's id, as vLLM does. What no provider is asked,
        surfaces other than chat and embeddings or fields of vLLM's own, is answered with 400.
        """
        provider = target.provider
        if provider is None or self._litellm is None:
            raise RuntimeError(f"{target.alias} has no provider")
        place = {"model": provider.model, "max_retries": 0, "no-log": True}
        if provider.api_base:
            place["api_base"] = provider.api_base
        if provider.api_key_env:
            place["api_key"] = self._keys[provider.api_key_env]
        call = _Call(self._litellm, target.alias, listener, f"chatcmpl-{request_id}")
        task = asyncio.create_task(call.run(surface_path, body, place, timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(call.ended)
        return _TaskLeg(task, call)

    async def close(self) -> None:
        """End what is under way, and the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._litellm is not None:
            await self._litellm.close_litellm_async_clients()
            # It would go on handing out the closed ones.
            self._litellm.in_memory_llm_clients_cache.flush_cache()


class _Call:
    """One request to a provider: what litellm gives, told to a listener as an engine would."""

    def __init__(self, litellm: ModuleType, alias: str, listener: Listener, answer_id: str) -> None:
        self._litellm = litellm
        self._alias = alias
        self._listener = listener
        self._id = answer_id
        self._begun = False
        self.silent = False
        """Whether the listener wants to hear nothing more."""
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def run(
        self, surface_path: str, body: bytes, place: Mapping[str, Any], timeout_s: float
    ) -> None:
        """Ask, and tell the listener how it went."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ask(surface_path, body, place)
        except TimeoutError:
            self._tell("failed", f"no answer within {timeout_s:g} s")
        except InvalidRequest as error:
            self._refuse(error.status, error.message, param=error.param)
        except Exception as error:  # noqa: BLE001 - litellm raises of all kinds, also its own bugs
            self._trouble(error)
        else:
            self._tell("done")

    def ended(self, task: asyncio.Task[None]) -> None:
        """The task is over; one that was told to hang up has not said so."""
        if task.cancelled():
            self._tell("failed", "hung up")

    async def _ask(self, surface_path: str, body: bytes, place: Mapping[str, Any]) -> None:
        said: dict[str, Any] = msgspec.json.decode(body)
        if surface_path == EMBEDDINGS:
            answer = await self._litellm.aembedding(**_fields(said, _EMBEDDINGS), **place)
            self._whole(_plain(answer))
        elif surface_path != CHAT:
            raise InvalidRequest(
                f"`{self._alias}` is a provider's model: it answers {CHAT} and {EMBEDDINGS} only."
            )
        elif said.get("stream"):
            usage = {"stream_options": {"include_usage": True}}
            chunks = await self._litellm.acompletion(**_fields(said, _CHAT), **usage, **place)
            async with aclosing(chunks):
                await self._events(chunks)
        else:
            answer = await self._litellm.acompletion(**_fields(said, _CHAT), **place)
            self._whole(_plain(answer) | {"id": self._id})

    def _whole(self, answer: Mapping[str, Any]) -> None:
        self._tell("head", 200, b"application/json")
        self._tell("data", msgspec.json.encode(answer))

    async def _events(self, chunks: AsyncIterator[Any]) -> None:
        """OpenAI's stream: its last event has the usage and no choices. litellm's may have both."""
        last: dict[str, Any] = {}
        usage = None
        async for chunk in chunks:
            last = _plain(chunk) | {"id": self._id}
            counted = last.pop("usage", None)
            usage = counted or usage
            if not counted or any(map(_says_something, last["choices"])):
                self._event(msgspec.json.encode(last))
            await self.flowing.wait()
        if usage:
            self._event(msgspec.json.encode(last | {"choices": [], "usage": usage}))
        self._event(b"[DONE]")

    def _event(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self._tell("head", 200, b"text/event-stream")
        self._tell("data", b"data: " + data + b"\n\n")

    def _trouble(self, error: Exception) -> None:
        """Whose fault it is: the client's passes, ours and the operator's do not."""
        status = getattr(error, "status_code", None)
        said = str(error)
        known = hasattr(error, "llm_provider")  # all of litellm's have it, and no others
        if self._begun or not known:
            log = logger.warning if known else logger.exception
            log("the provider of %s broke off: %s", self._alias, said)
            self._tell("failed", "the provider broke off")
        elif status in _CLIENTS_FAULT and not isinstance(
            error, self._litellm.exceptions.LiteLLMUnknownProvider
        ):
            self._refuse(status, said, param=getattr(error, "param", None))
        else:
            passing = status in _PASSING
            hint = "" if passing else "; are its model, api_base and key in ratchet.yaml right?"
            level = logging.INFO if passing else logging.ERROR
            logger.log(
                level, "the provider of %s answered %s: %s%s", self._alias, status, said, hint
            )
            self._tell("failed", f"the provider answered {status}")

    def _refuse(self, status: int, message: str, *, param: str | None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        self._tell("head", status, b"application/json")
        self._tell("data", msgspec.json.encode({"error": error}))
        self._tell("done")

    def _tell(self, what: str, *told: Any) -> None:
        if not self.silent:
            getattr(self._listener, what)(*told)


class _TaskLeg:
    """The way to a task that asks a provider."""

    def __init__(self, task: asyncio.Task[None], call: _Call) -> None:
        self._task = task
        self._call = call

    def cancel(self) -> None:
        """Break it off; nothing more is heard."""
        self._call.silent = True
        self._task.cancel()

    def hang_up(self) -> None:
        """Break it off. What the provider counts from here on stays unknown."""
        self._task.cancel()

    def pause(self) -> None:
        """Read no further events."""
        self._call.flowing.clear()

    def resume(self) -> None:
        """Read on."""
        self._call.flowing.set()


def _loaded() -> ModuleType:
    # Or it would fetch a map of prices, and read a .env file of the working directory.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    import litellm
    import openai.resources  # noqa: F401 - else the first call loads it, and all others wait

    for name in ("LiteLLM", "httpx"):  # a line or two a call
        logging.getLogger(name).setLevel(logging.WARNING)
    litellm.suppress_debug_info = True
    litellm.disable_streaming_logging = True
    litellm.num_retries = 0
    litellm.callbacks = []
    return litellm


def _keys(providers: Iterable[Provider], env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for provider in providers:
        if name := provider.api_key_env:
            if not env.get(name):
                raise KeyUnavailable(f"{name}, the key of {provider.model}, is not set")
            yield name, env[name]


def _fields(said: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """What a provider is asked of ``said``. Raises InvalidRequest for what it would not know."""
    given = {name: value for name, value in said.items() if value is not None}
    strange = sorted(given.keys() - known - _OURS)
    if strange:
        raise InvalidRequest(
            f"A provider's model does not take: {', '.join(strange)}.", param=strange[0]
        )
    return {name: value for name, value in given.items() if name in known}


def _plain(answer: Any) -> dict[str, Any]:
    """The answer as OpenAI's JSON: litellm's many empty fields go, but for those that it has."""
    plain: dict[str, Any] = answer.model_dump(mode="json", exclude_none=True)
    for choice in plain.get("choices", ()):
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return plain


def _says_something(choice: Mapping[str, Any]) -> bool:
    return bool(choice["finish_reason"] or choice.get("delta"))
