"""The other end of the learner's socket."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa

from gateway.errors import BadQuery, StoreError
from learner.errors import LearnerDown

__all__ = ["ARROW", "LearnerClient", "LearnerDown"]

ARROW = "application/vnd.apache.arrow.stream"


class LearnerClient:
    """Asks a running learner, on a connection a question.

    Every method raises LearnerDown when there is none.
    """

    def __init__(self, path: Path, *, timeout_s: float = 60.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def select(self, sql: str) -> pa.Table:
        """The answer to one SELECT. Raises BadQuery, or StoreError when the log is unwell."""
        return pa.Table.from_batches(self.batches(sql))

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The same in constant memory; at least one batch. Raises the same."""
        return self._batches("POST", "/log/select", {"sql": sql})

    def query(self, name: str, parameters: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """The answer to a named query; at least one batch. Raises BadQuery, StoreError."""
        return self._batches("GET", f"/log/queries/{quote(name)}?{urlencode(parameters)}")

    def health(self) -> dict[str, Any]:
        """How the log is. Raises StoreError when it does not answer."""
        status, answer = self._call("GET", "/health")
        if status != 200:
            raise _refusal(status, answer)
        told: dict[str, Any] = json.loads(answer)
        return told

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
            raise _refusal(status, answer)
        told: dict[str, Any] = json.loads(answer)
        return told

    def _batches(self, method: str, path: str, body: Any = None) -> Iterator[pa.RecordBatch]:
        with self._sent(method, path, body, {"accept": ARROW}) as response:
            if response.status != 200:
                raise _refusal(response.status, response.read())
            try:
                with pa.ipc.open_stream(response) as reader:
                    yield from reader
            except (OSError, HTTPException, pa.ArrowException) as error:
                raise StoreError(f"the learner's answer broke off: {error}") from error

    def _list(self, path: str) -> list[dict[str, Any]]:
        status, answer = self._call("GET", path)
        if status != 200:
            raise LearnerDown(f"the learner answered {status}: {answer.decode(errors='replace')}")
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows

    def _call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        with self._sent(method, path, body, headers or {}) as response:
            return response.status, response.read()

    @contextmanager
    def _sent(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> Iterator[HTTPResponse]:
        """The answer, to be read within."""
        content = None if body is None else json.dumps(body)
        headers = {"content-type": "application/json", **headers}
        with closing(_UnixConnection(self._path, self._timeout_s)) as connection:
            try:
                connection.request(method, path, content, headers)
                yield connection.getresponse()
            except (OSError, HTTPException) as error:
                raise LearnerDown(f"no learner answers at {self._path}: {error}") from error


def _refusal(status: int, answer: bytes) -> StoreError:
    """What the learner's envelope says, as we would have raised it."""
    try:
        message = json.loads(answer)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the learner answered {status}: {answer.decode(errors='replace')}"
    return BadQuery(message) if status == 400 else StoreError(message)


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("learner", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
