import asyncio
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from gateway.errors import BadQuery
from learner.api.arrow import ArrowResponse

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


class Batches:
    """Many batches, and what became of them."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.given = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for number in range(self.n):
                self.given += 1
                yield pa.RecordBatch.from_pylist([{"number": number}])
        finally:
            self.is_closed = True


async def nothing() -> dict[str, Any]:
    """A client that stays."""
    await asyncio.Event().wait()
    return {}


async def test_a_batch_is_fetched_only_when_the_one_before_is_sent() -> None:
    batches = Batches(100)
    sent: list[bytes] = []
    ahead = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])
            ahead.append(batches.given - len(sent))

    await ArrowResponse(iter(batches))(SCOPE, nothing, send)

    table = pa.ipc.open_stream(b"".join(sent)).read_all()
    assert table["number"].to_pylist() == list(range(100))
    assert max(ahead) <= 0
    assert batches.is_closed


async def test_the_query_ends_when_the_client_leaves() -> None:
    batches = Batches(1_000_000)
    is_gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if batches.given > 3:
            is_gone.set()
            await asyncio.Event().wait()

    await ArrowResponse(iter(batches))(SCOPE, receive, send)

    assert batches.is_closed
    assert batches.given < 10


def test_what_is_wrong_with_the_first_batch_is_raised_before_anything_is_sent() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        raise BadQuery("no such column")
        yield

    with pytest.raises(BadQuery, match="no such column"):
        ArrowResponse(broken())
