"""One vLLM over HTTP: its health, its adapters, its answers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from serving.errors import EngineRefused, EngineUnavailable

_UNFINISHED = re.compile(
    r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE
)

MOST_PROBED = 64
"""Tokens of one probe: vLLM tells of at most 128 token ids in one request."""


class Engine:
    """A client of one vLLM OpenAI server; use it as an async context manager.

    Every method raises EngineUnavailable when the engine cannot be reached or fails,
    and EngineRefused when it answers with a 4xx.
    """

    def __init__(self, url: str, *, timeout_s: float = 120.0, connections: int = 64) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout, connector=aiohttp.TCPConnector(limit=self._connections)
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def healthy(self) -> bool:
        """Whether the engine answers and its core is alive."""
        try:
            await self._call("GET", "/health")
        except (EngineUnavailable, EngineRefused):
            return False
        return True

    async def resident(self) -> frozenset[str]:
        """Names of the adapters the engine knows; the base itself is not among them."""
        models = await self._call("GET", "/v1/models")
        return frozenset(model["id"] for model in models["data"] if model.get("parent"))

    async def unfinished(self) -> int:
        """How many requests it is answering or has queued."""
        metrics = await self._call("GET", "/metrics")
        return int(sum(float(count) for count in _UNFINISHED.findall(metrics)))

    async def load(self, name: str, path: Path) -> None:
        """Register the adapter directory ``path`` under ``name``, a name never used before."""
        await self._call(
            "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}
        )

    async def unload(self, name: str) -> None:
        """Forget the adapter ``name``."""
        await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of ``/v1/chat/completions``, not streamed."""
        answer: dict[str, Any] = await self._call("POST", "/v1/chat/completions", body)
        return answer

    async def completions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of ``/v1/completions``, not streamed; prompts may be token ids."""
        answer: dict[str, Any] = await self._call("POST", "/v1/completions", body)
        return answer

    async def prompt_logprobs(self, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probability of each token after the first, as ``model`` sees it.

        At most MOST_PROBED tokens. Every prefix is a prompt of its own, and is asked what it
        thinks of its next token. vLLM's ``prompt_logprobs`` would be one prompt, but beside
        other requests in a LoRA batch it kills the engine (0.32, CPU). Two tokens are
        generated, so that both of the model's paths are warm afterwards.
        """
        body = {
            "model": model,
            "prompt": [list(token_ids[:end]) for end in range(1, len(token_ids))],
            "max_tokens": 2,
            "temperature": 0,
            "ignore_eos": True,
            "logprobs": 1,
            "logprob_token_ids": sorted(set(token_ids[1:])),
            "return_tokens_as_token_ids": True,
        }
        answer = await self.completions(body)
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        firsts = [choice["logprobs"]["top_logprobs"][0] for choice in choices]
        pairs = zip(token_ids[1:], firsts, strict=True)
        return tuple(float(first[f"token_id:{token}"]) for token, first in pairs)

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        if self._session is None:
            raise RuntimeError("use the engine inside `async with`")
        try:
            async with self._session.request(method, self.url + path, json=body) as response:
                if response.status >= 500:
                    raise EngineUnavailable(
                        f"{self.url}{path} answered {response.status}: {await response.text()}"
                    )
                if response.status >= 400:
                    raise EngineRefused(response.status, await response.text())
                if response.content_type == "application/json":
                    return await response.json()
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineUnavailable(
                f"{self.url} did not answer {path}: {error or type(error).__name__}"
            ) from error
