"""A process that stands in for vLLM's API server: same flags, same paths, up in a moment.

Each adapter has log-probabilities of its own, by its name. A completion that asks for
``seconds`` takes that long.
"""

import argparse
import asyncio
import zlib
from pathlib import Path
from typing import Any

from aiohttp import web

SCRIPT = Path(__file__)


class StandIn:
    """The base, its adapters, and how many requests are being answered."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.adapters: dict[str, str] = {}
        self.running = 0
        self.broken = False

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_post("/break", self.break_core)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/load_lora_adapter", self.load)
        app.router.add_post("/v1/unload_lora_adapter", self.unload)
        app.router.add_post("/v1/completions", self.completions)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.broken else 200)

    async def break_core(self, _: web.Request) -> web.Response:
        """From now on the server outlives its core, as vLLM's does for some seconds."""
        self.broken = True
        return web.Response()

    async def models(self, _: web.Request) -> web.Response:
        data: list[dict[str, Any]] = [{"id": self.base, "parent": None}]
        data += [{"id": name, "parent": self.base} for name in self.adapters]
        return web.json_response({"data": data})

    async def metrics(self, _: web.Request) -> web.Response:
        text = f'vllm:num_requests_running{{engine="0"}} {float(self.running)}\n'
        return web.Response(text=text + 'vllm:num_requests_waiting{engine="0"} 0.0\n')

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="loaded")

    async def unload(self, request: web.Request) -> web.Response:
        del self.adapters[(await request.json())["lora_name"]]
        return web.Response(text="unloaded")

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        model = body["model"]
        if model != self.base and model not in self.adapters:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        self.running += 1
        await asyncio.sleep(body.get("seconds", 0.0))
        self.running -= 1
        value = -1.0 - (zlib.crc32(model.encode()) % 97 if model != self.base else 0)
        told = {f"token_id:{token}": value for token in body.get("logprob_token_ids", ())}
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        choices = [
            {"index": index, "text": model, "logprobs": {"top_logprobs": [told]}}
            for index in range(len(prompts))
        ]
        return web.json_response({"choices": choices})


def stand_in(folder: Path, python: str, instead: Path = SCRIPT) -> str:
    """An executable that takes a Python's place and runs ``instead`` of vLLM's module."""
    script = folder / "python-with-vllm"
    script.write_text(f'#!/bin/sh\nexec {python} {instead} "$@"\n')
    script.chmod(0o755)
    return str(script)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    told, _ = parser.parse_known_args()
    app = StandIn(told.served_model_name).app()
    web.run_app(app, host="127.0.0.1", port=told.port, print=None)


if __name__ == "__main__":
    main()
