"""Answers in Arrow's stream format, a batch at a time."""

import io
import itertools
from collections.abc import Generator, Iterator

import pyarrow as pa
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from learner.api.client import ARROW


class ArrowResponse(StreamingResponse):
    """``batches``, of which there is at least one, as they come.

    What is wrong with the first is raised here; later it cuts the answer short, which a reader
    notices. When the client leaves, the query ends.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._pieces = _encoded(batches)
        first = next(self._pieces)
        super().__init__(itertools.chain([first], self._pieces), media_type=ARROW)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. No thread is inside the query any more when this ends: it may be closed."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()


def _encoded(batches: Iterator[pa.RecordBatch]) -> Generator[bytes, None, None]:
    """Each batch in Arrow's format, and its end mark."""
    sink = io.BytesIO()
    first = next(batches)
    with pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        yield _taken(sink)
        for batch in batches:
            writer.write_batch(batch)
            yield _taken(sink)
    yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    piece = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return piece
