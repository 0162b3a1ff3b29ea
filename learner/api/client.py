"""The other end of the learner's socket."""

import json
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pyarrow as pa

from gateway.errors import BadQuery, StoreError


class LearnerDown(Exception):
    """No learner listens on the socket."""


class LearnerClient:
    """Asks a running learner, on a connection a question.

    Every method raises LearnerDown when there is none.
    """

    def __init__(self, path: Path, *, timeout_s: float = 60.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def select(self, sql: str) -> pa.Table:
        """The answer to one SELECT. Raises BadQuery, or StoreError when the log is unwell."""
        status, answer = self._call("POST", "/log/select", {"sql": sql})
        if status == 400:
            raise BadQuery(json.loads(answer)["error"]["message"])
        if status != 200:
            raise StoreError(answer.decode(errors="replace"))
        return pa.ipc.open_stream(answer).read_all()

    def erase(self, order: dict[str, Any], *, tenant: str) -> dict[str, Any]:
        """The receipt of an erasure. Raises BadQuery, or StoreError when the log is unwell."""
        return self._asked("/v1/erasures", order, {"x-ratchet-tenant": tenant})

    def compact(self) -> int:
        """Remove what was erased from every file; how many erasures wait. Raises StoreError."""
        waiting: int = self._asked("/log/compact", {}, {})["waiting"]
        return waiting

    def turns(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest turns, newest first."""
        return self._list(f"/turns?limit={limit}")

    def events(self, turn_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """A turn's events after sequence number ``after``."""
        return self._list(f"/turns/{turn_id}/events?after={after}")

    def _asked(self, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        status, answer = self._call("POST", path, body, headers)
        if status != 200:
            message = json.loads(answer)["error"]["message"]
            raise BadQuery(message) if status == 400 else StoreError(message)
        told: dict[str, Any] = json.loads(answer)
        return told

    def _list(self, path: str) -> list[dict[str, Any]]:
        status, answer = self._call("GET", path)
        if status != 200:
            raise LearnerDown(f"the learner answered {status}: {answer.decode(errors='replace')}")
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows

    def _call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"content-type": "application/json"} | (headers or {})
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise LearnerDown(f"no learner answers at {self._path}: {error}") from error
        finally:
            connection.close()


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("learner", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
