"""The way to vLLM: one pooled HTTP session a worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from gateway.errors import Unavailable
from gateway.routing import Target


class Upstream:
    """Forwards requests to engines. Its errors are all Unavailable: never the client's fault."""

    def __init__(self, *, timeout_s: float, connections: int) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=5.0),
            connector=aiohttp.TCPConnector(limit=connections),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def post(
        self, target: Target, path: str, body: bytes, *, request_id: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The engine's answer, headers read, body not. Leaving the block early aborts it."""
        headers = {"content-type": "application/json", "x-request-id": request_id}
        try:
            async with self._session.post(
                target.url + path, data=body, headers=headers
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"The engine for `{target.alias}` did not answer. Please retry."
            ) from error
