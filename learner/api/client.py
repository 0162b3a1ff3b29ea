"""The other end of the learner's socket."""

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from gateway.errors import BadQuery, StoreError


class LearnerDown(Exception):
    """No learner listens on the socket."""


class LearnerClient:
    """Asks a running learner. Every method raises LearnerDown when there is none."""

    def __init__(self, socket: Path, *, timeout_s: float = 60.0) -> None:
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://learner",
            timeout=timeout_s,
        )

    def close(self) -> None:
        self._http.close()

    def select(self, sql: str) -> pa.Table:
        """The answer to one SELECT. Raises BadQuery, or StoreError when the log is unwell."""
        response = self._call("POST", "/log/select", json={"sql": sql})
        if response.status_code == 400:
            raise BadQuery(response.json()["error"]["message"])
        if response.status_code != 200:
            raise StoreError(response.text)
        return pa.ipc.open_stream(response.content).read_all()

    def turns(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest turns, newest first."""
        turns: list[dict[str, Any]] = self._call("GET", "/turns", params={"limit": limit}).json()
        return turns

    def events(self, turn_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """A turn's events after sequence number ``after``."""
        path = f"/turns/{turn_id}/events"
        events: list[dict[str, Any]] = self._call("GET", path, params={"after": after}).json()
        return events

    def healthy(self) -> bool:
        """Whether the learner and its log answer."""
        try:
            return self._call("GET", "/health").status_code == 200
        except LearnerDown:
            return False

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise LearnerDown(f"no learner answers at {self._socket}: {error}") from error
