"""A process that appends to the spool until it is killed.

    python -m tests.chaos.writers --spool DIR --worker NAME --acks FILE --durability group --seed 1

It acknowledges a record only once the real ``SpoolWriter`` has promised it. Lines are sealed
when the environment holds a key.
"""

import argparse
import asyncio
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.log.cipher import Keyring
from gateway.log.record import Invocation, new_id
from gateway.log.spool import Durability, SpoolWriter
from tests.chaos.acks import Acks

PRODUCERS = 4
"""Requests a worker answers at once."""
LARGEST_BYTES = 16_000
PAUSE_S = 0.02
ANSWER = (
    b'{"object":"chat.completion","model":"base","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"fine"}}]}'
)


def invocation(rng: random.Random, *, largest: int = LARGEST_BYTES, **more: object) -> Invocation:
    """A call whose question begins with its own id, and that hardly compresses."""
    record_id = new_id()
    text = f"{record_id} {rng.randbytes(rng.randint(1, largest // 2)).hex()}"
    request = {"model": "helpdesk", "messages": [{"role": "user", "content": text}]}
    return msgspec.structs.replace(
        Invocation(
            id=record_id,
            ts=datetime.now(UTC),
            tenant="acme",
            task="helpdesk",
            episode_id=record_id,
            request_model="helpdesk",
            status=200,
            tags={"task": "helpdesk", "mark": str(record_id)},
            request=msgspec.Raw(msgspec.json.encode(request)),
            response=msgspec.Raw(ANSWER),
        ),
        **more,
    )


async def produce(writer: SpoolWriter, acks: Acks, rng: random.Random) -> None:
    """Append, wait for what the durability promises, acknowledge; for ever."""
    while True:
        record = invocation(rng)
        writer.append(record)
        await writer.synced()
        acks.acknowledge(record.id, str(record.id))
        await asyncio.sleep(rng.expovariate(1 / PAUSE_S))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--acks", type=Path, required=True)
    parser.add_argument("--durability", type=Durability, required=True)
    parser.add_argument("--seed", type=int, required=True)
    told = parser.parse_args()
    keys = Keyring.from_environment(os.environ)
    writer = SpoolWriter(
        told.spool,
        told.worker,
        durability=told.durability,
        cipher=keys.spool if keys else None,
        reserve=0,
    )
    acks, rng = Acks(told.acks), random.Random(told.seed)
    await asyncio.gather(*(produce(writer, acks, rng) for _ in range(PRODUCERS)))


if __name__ == "__main__":
    asyncio.run(main())
