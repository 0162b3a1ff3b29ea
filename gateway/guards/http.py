"""A guard that is an HTTP endpoint."""

from collections.abc import Mapping
from string import Template

import aiohttp

from gateway.errors import GuardUnusable
from gateway.guards.ask import GuardFailed
from gateway.model import HttpGuard

MAX_ANSWER = 32 << 20
"""Bytes: a verdict may hold a whole request or answer."""

_JSON = {"content-type": "application/json"}


class Endpoints:
    """Asks all endpoints of one worker, over connections that are kept. Opened when first used."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Endpoint:
    """One of them. Raises GuardUnusable when a header names a variable that is not set."""

    def __init__(self, guard: HttpGuard, endpoints: Endpoints, env: Mapping[str, str]) -> None:
        self._endpoints = endpoints
        self._url = guard.url
        self._headers = _JSON | _filled(guard, env)
        self._timeout_s = guard.timeout_s
        self._timeout = aiohttp.ClientTimeout(total=guard.timeout_s)

    async def ask(self, question: bytes) -> bytes:
        """Its verdict, as JSON. Raises GuardFailed."""
        try:
            async with self._endpoints.session.post(
                self._url,
                data=question,
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise GuardFailed(f"it answered with status {response.status}")
                return await _bounded(response.content)
        except TimeoutError as error:
            raise GuardFailed(f"no verdict within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise GuardFailed(f"it cannot be asked: {type(error).__name__}") from error


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    read = bytearray()
    async for piece in content.iter_any():
        read += piece
        if len(read) > MAX_ANSWER:
            raise GuardFailed(f"its verdict has more than {MAX_ANSWER} bytes")
    return bytes(read)


def _filled(guard: HttpGuard, env: Mapping[str, str]) -> dict[str, str]:
    headers = {}
    for name, value in guard.headers.items():
        try:
            headers[name.lower()] = Template(value).substitute(env)
        except KeyError as error:
            raise GuardUnusable(
                f"the guard {guard.name} sends ${error.args[0]} as {name}, and that variable is "
                "not set; export it first"
            ) from error
        except ValueError as error:
            raise GuardUnusable(
                f"the guard {guard.name}: its header {name} has a $ that starts no name; "
                "write $$ for the character itself"
            ) from error
    return headers
