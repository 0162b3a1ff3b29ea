"""Gives the answers of the ordinary endpoints an ``x-request-id``, as those of models have."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.log.record import new_id

NAME = b"x-request-id"


class RequestId:
    """ASGI middleware. Only the ids of models' answers name a row of the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as before, and add the header where it is missing."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                if all(name.lower() != NAME for name, _ in headers):
                    message["headers"] = [*headers, (NAME, str(new_id()).encode())]
            await send(message)

        await self._app(scope, receive, named)
