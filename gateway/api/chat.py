"""``POST /v1/chat/completions``: the hot path, a bare ASGI application inside the FastAPI one.

The order of things is the promise: resolve once, forward, record, and only then send the
last byte.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import aiohttp
import msgspec
from starlette.types import Receive, Scope, Send

from gateway.api.context import context
from gateway.api.envelope import encoded, headers_of, refusal
from gateway.api.hidden import Hidden
from gateway.api.request import parse, rewritten
from gateway.api.stream import DONE, EventStream
from gateway.errors import GatewayError, RecordFailed, TooLarge, Unavailable
from gateway.log.record import new_id
from gateway.log.subject import SubjectKey
from gateway.recorder import Exchange, Recorder
from gateway.routing import resolve
from gateway.settings import Capture
from gateway.state import State
from gateway.upstream import Upstream

PATH = "/v1/chat/completions"
CLIENT_CLOSED_REQUEST = 499
"""What the record says, as nginx does, when the client left before any answer began."""

_json = msgspec.json.Decoder(msgspec.Raw)

_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


class ChatCompletions:
    """The endpoint. One instance serves all requests of a worker."""

    def __init__(  # noqa: PLR0913 - what all requests share
        self,
        state: State,
        upstream: Upstream,
        recorder: Recorder,
        *,
        subjects: SubjectKey,
        capture: Mapping[str, Capture],
        max_body_bytes: int,
        now: Callable[[], datetime],
    ) -> None:
        self._state = state
        self._upstream = upstream
        self._recorder = recorder
        self._subjects = subjects
        self._capture = capture
        self._max_body_bytes = max_body_bytes
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, errors included."""
        try:
            exchange = await self._accept(scope, receive)
        except GatewayError as error:
            await _send(send, error.status, _JSON | headers_of(error), encoded(error))
            return
        except ClientGone:
            return
        watch = _cancel_on_hangup(receive)
        try:
            await self._serve(exchange, send)
        except asyncio.CancelledError:
            self._recorder.record_cut(exchange, status=exchange.status or CLIENT_CLOSED_REQUEST)
            if not watch.done():
                raise
        finally:
            watch.cancel()

    async def _accept(self, scope: Scope, receive: Receive) -> Exchange:
        """Check who asks and what, and decide who answers."""
        ts = self._now()
        sent = dict(scope["headers"])
        key = self._state.key(sent)
        body = await self._body(receive)
        request = parse(body)
        invocation_id = new_id()
        return Exchange(
            id=invocation_id,
            ts=ts,
            key=key,
            request=request,
            body=body,
            target=resolve(self._state.snapshot, request.model),
            context=context(
                sent,
                request,
                invocation_id=invocation_id,
                tenant=key.tenant,
                subjects=self._subjects,
            ),
        )

    async def _body(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body_bytes:
                raise TooLarge(f"The body is over the limit of {self._max_body_bytes} bytes.")
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def _serve(self, exchange: Exchange, send: Send) -> None:
        try:
            await self._answer(exchange, send)
        except GatewayError as error:
            await self._refuse(exchange, error, send)

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        request, target = exchange.request, exchange.target
        stream = bool(request.stream)
        # Without bodies there is nowhere to keep what would be captured.
        wanted = self._capture.get(target.alias) if request.store is not False else None
        body, hidden = rewritten(
            exchange.body, model=target.model, stream=stream, capture=wanted or Capture()
        )
        async with self._upstream.post(target, PATH, body, request_id=exchange.id.hex) as response:
            if stream and response.status == 200:
                await self._relay(exchange, response, send, EventStream(hidden))
            else:
                await self._whole(exchange, response, send, hidden)

    async def _refuse(self, exchange: Exchange, error: GatewayError, send: Send) -> None:
        status = exchange.status or error.status
        try:
            self._recorder.record(exchange, status=status, error_type=error.code)
            await self._recorder.durable(exchange)
        except RecordFailed as failed:
            error = failed
        if exchange.status is None:
            headers = _headers(exchange) | _JSON | headers_of(error)
            await _send(send, error.status, headers, encoded(error))
        else:
            # The answer has begun: what remains is to say in the stream that it broke.
            await _continue(send, b"data: " + encoded(error) + b"\n\n", more=False)

    async def _whole(
        self, exchange: Exchange, response: aiohttp.ClientResponse, send: Send, hidden: Hidden
    ) -> None:
        payload = await response.read()
        error_type = None
        if response.status >= 500 or (response.status == 404 and exchange.target.adapter):
            # A restarted engine that lacks the adapter says 404. To the client it is a 503.
            raise Unavailable(f"The engine for `{exchange.target.alias}` failed. Please retry.")
        if response.status >= 400:
            error_type = "invalid_request"
            payload = refusal(payload)
        elif not _is_json(payload):
            # Something stands between us and the engine. The log would not take it either.
            raise Unavailable(f"The engine for `{exchange.target.alias}` gave no JSON.")
        self._recorder.record(
            exchange, status=response.status, response=payload, error_type=error_type
        )
        await self._recorder.durable(exchange)
        seen = hidden.of_answer(payload) if response.status == 200 else payload
        await _send(send, response.status, _headers(exchange) | _JSON, seen)

    async def _relay(
        self,
        exchange: Exchange,
        response: aiohttp.ClientResponse,
        send: Send,
        events: EventStream,
    ) -> None:
        exchange.status = 200
        await _start(send, 200, _headers(exchange) | _SSE)
        async for piece in response.content.iter_any():
            exchange.received(piece)
            out = events.whole(piece)
            if out.endswith(DONE):
                self._recorder.record(exchange, status=200)
                await self._recorder.durable(exchange)
                await _continue(send, out, more=False)
                return
            if out:
                await _continue(send, out, more=True)
        raise Unavailable("The engine ended the stream early. Please retry.")


def _cancel_on_hangup(receive: Receive) -> asyncio.Task[None]:
    """Cancels the calling task when its client disconnects, unless cancelled first."""
    handler = asyncio.current_task()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if handler is not None:
            handler.cancel()

    return asyncio.create_task(watch())


def _is_json(payload: bytes) -> bool:
    try:
        payload.decode()
        _json.decode(payload)
    except ValueError:
        return False
    return True


def _headers(exchange: Exchange) -> dict[str, str]:
    headers = {
        "x-request-id": str(exchange.id),
        "x-ratchet-alias": exchange.target.alias,
        "x-ratchet-engine": exchange.target.engine_id,
    }
    if exchange.target.adapter:
        headers["x-ratchet-adapter"] = exchange.target.adapter
    return headers


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    await _start(send, status, headers | {"content-length": str(len(body))})
    await _continue(send, body, more=False)


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _continue(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
