"""The fake vLLM as a process of its own: ``python -m tests.chaos.engine PORT``."""

import asyncio
import sys

from tests.fakes.vllm import FakeVllm

CHUNK_DELAY_S = 0.005


async def main() -> None:
    async with FakeVllm("base", port=int(sys.argv[1]), chunk_delay_s=CHUNK_DELAY_S):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
