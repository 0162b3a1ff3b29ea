"""An engine with a fixed number of slots: what it cannot run at once waits in its queue.

python -m tests.benchmarks.gateway.slots PORT SLOTS SECONDS
"""

import asyncio
import sys

from aiohttp import web

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "base-8b",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "yes"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
}


def main() -> None:
    port, slots, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    free = asyncio.Semaphore(slots)

    async def chat(_: web.Request) -> web.Response:
        async with free:
            await asyncio.sleep(seconds)
        return web.json_response(_ANSWER)

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/health", health)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
