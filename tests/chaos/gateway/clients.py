"""Clients of every temper: most want an answer, some leave, dawdle, err or come with no right."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from tests.chaos.gateway.script import CHAT
from tests.chaos.gateway.wire import DONE, Answer, Line, asking, request
from tests.chaos.gateway.world import HELPDESK, PINNED, SPARE, Holder

TEXT = "/v1/completions"
LATE_S = 2.0
"""How long a revoked key may still open."""
PATIENCE_S = 60.0
EXPECTED = frozenset({200, 400, 401, 404, 429, 503})
NAMES = (HELPDESK,) * 14 + (SPARE,) * 4 + (PINNED,) * 2
TEMPERS = {
    "whole": 0.80,
    "unsent": 0.01,  # leaves before its request is whole
    "unheard": 0.05,  # leaves before the answer
    "midway": 0.06,
    "at the end": 0.03,
    "slow": 0.004,
    "slow and gone": 0.002,
    "wrong": 0.03,
    "strange": 0.014,
}
WRONG = (
    b"{",
    b"[]",
    b'{"model": "helpdesk"}',
    b'{"model": "helpdesk", "messages": [], "stream": true}',
    b'{"model": "helpdesk", "messages": [{"role": "user", "content": "x"}], "n": 100000}',
    b'{"model": "helpdesk", "messages": [{"role": "user", "content": "x"}], "chat_template": "x"}',
    b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}',
)


@dataclass(slots=True)
class Seen:
    """What all clients have seen."""

    asked: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    broken_streams: int = 0
    """Streams that ended with an error, as their last event says."""
    lost_lines: int = 0
    """Connections that broke under a client that had not left."""
    acked: dict[str, str] = field(default_factory=dict)
    """Ids of the calls that were answered to the last byte, and the key of each."""
    wrong: list[str] = field(default_factory=list)
    """What no client may see."""


class Clients:
    """Closed loops over the keys that ``holders`` gives; ``revoked`` says since when one is not.

    Answers do not come with what they took, unless a client asks; the ledger and the log say it.
    """

    def __init__(
        self,
        port: int,
        holders: Callable[[random.Random], Holder],
        revoked: dict[str, float],
    ) -> None:
        self.seen = Seen()
        self._port = port
        self._holders = holders
        self._revoked = revoked
        self._numbers = count()

    async def run(self, rng: random.Random, more: Callable[[], bool]) -> None:
        """One client, as long as ``more`` is wanted."""
        line: Line | None = None
        while more():
            temper = rng.choices(list(TEMPERS), list(TEMPERS.values()))[0]
            self.seen.asked += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if temper != "whole":
                        await self._otherwise(temper, rng)
                        continue
                    line = line or await Line.to(self._port)
                    if (await self._whole(line, rng)).closes:
                        line.close()
                        line = None
            except TimeoutError:
                self.seen.wrong.append(f"{temper}: no answer within {PATIENCE_S:g} s")
                break
            except (OSError, EOFError):
                self.seen.lost_lines += 1
                if line is not None:
                    line.close(rudely=True)
                    line = None
                await asyncio.sleep(0.02)
        if line is not None:
            line.close()

    async def _whole(self, line: Line, rng: random.Random) -> Answer:
        path, holder, mark, body = self._request(rng)
        started = asyncio.get_running_loop().time()
        line.send(request(path, holder.secret, body))
        answer = await line.answer()
        self._judge(answer, holder, mark, started)
        if answer.status in {429, 503}:
            await asyncio.sleep(rng.uniform(0, 0.03))
        return answer

    async def _otherwise(self, temper: str, rng: random.Random) -> None:
        line = await Line.to(self._port, narrow="slow" in temper)
        try:
            if temper == "wrong":
                await self._wrong(line, rng)
            elif temper == "strange":
                line.send(request(CHAT, "sk-ratchet-nobodys", b"{}"))
                await self._refused(line, 401)
            elif temper == "slow":
                await self._slow(line, rng)
            else:
                await self._leave(temper, line, rng)
        finally:
            line.close(rudely=rng.random() < 0.5)

    async def _leave(self, temper: str, line: Line, rng: random.Random) -> None:
        kind = "fat" if "slow" in temper else "thin"
        path, holder, _, body = self._request(rng, kind, stream=True if kind == "fat" else None)
        data = request(path, holder.secret, body)
        self.seen.cuts[temper] += 1
        if temper == "unsent":
            line.send(data[: rng.randrange(1, len(data))])
            return
        line.send(data)
        try:
            if temper == "midway":
                await line.part(rng.randrange(1, 3000))
            elif temper == "at the end":
                await line.all_but_the_end()
            elif temper == "slow and gone":
                await line.part(20_000)
                await asyncio.sleep(rng.uniform(0, 0.5))
            else:
                await asyncio.sleep(rng.choice((0.0, 0.001, 0.01)))
        except EOFError:  # the stream ended with an error and no [DONE], or a worker was killed
            pass

    async def _slow(self, line: Line, rng: random.Random) -> None:
        path, holder, mark, body = self._request(rng, "fat", stream=True)
        started = asyncio.get_running_loop().time()
        line.send(request(path, holder.secret, body))
        await asyncio.sleep(rng.uniform(0, 0.8))
        self._judge(await line.answer(), holder, mark, started)

    async def _wrong(self, line: Line, rng: random.Random) -> None:
        holder = self._holders(rng)
        line.send(request(CHAT, holder.secret, rng.choice(WRONG)))
        await self._refused(line, 400, 401, 404, 429, 503)

    async def _refused(self, line: Line, *statuses: int) -> None:
        answer = await line.answer()
        self.seen.statuses[answer.status] += 1
        if answer.status not in statuses:
            self.seen.wrong.append(f"{answer.status} to a wrong request: {answer.body[:200]!r}")

    def _request(
        self, rng: random.Random, kind: str = "thin", *, stream: bool | None = None
    ) -> tuple[str, Holder, str, bytes]:
        path = rng.choice((CHAT, CHAT, TEXT))
        holder, name = self._holders(rng), rng.choice(NAMES)
        mark = f"{holder.key.id} {name} {kind} {next(self._numbers)}."
        more: dict[str, object] = {"stream": rng.random() < 0.5 if stream is None else stream}
        if kind == "thin" and rng.random() < 0.1:
            more["n"] = 2
        if more["stream"] and rng.random() < 0.3:
            more["stream_options"] = {"include_usage": True}
        if rng.random() < 0.1:
            more["store"] = False
        return path, holder, mark, asking(path, name, mark, max_tokens=50, **more)

    def _judge(self, answer: Answer, holder: Holder, mark: str, started: float) -> None:
        """Whether it is one that this client could get."""
        seen = self.seen
        seen.statuses[answer.status] += 1
        if answer.status not in EXPECTED:
            seen.wrong.append(f"{answer.status}: {answer.body[:200]!r}")
        if answer.id:
            seen.acked[answer.id] = holder.key.id
        if answer.status != 200:
            return
        revoked = self._revoked.get(holder.key.id)
        if revoked is not None and started - revoked > LATE_S:
            seen.wrong.append(f"{holder.key.id} opens {started - revoked:.1f} s after its end")
        streams = answer.body.startswith(b"data: ")
        if streams and not answer.body.endswith(DONE):
            seen.broken_streams += 1
        elif mark.encode() not in answer.body or f"-{answer.id}".encode() not in answer.body:
            seen.wrong.append(f"{holder.key.id} got another's answer: {answer.body[:200]!r}")
