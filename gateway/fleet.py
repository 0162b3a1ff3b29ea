"""What one worker learns of the engines by calling them: how busy they are, who does not answer."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count

from serving.registry import EngineReport

BENCH_S, LONGEST_BENCH_S = 0.5, 15.0
"""How long an engine is left alone after its first failure, and at most; it doubles between."""

SLACK = 2
"""How many more calls than the least busy engine, plus a quarter of those, another may have and
still be chosen because its caches know the conversation and the adapter."""

RETRIES_PER_REQUEST, RETRIES_PER_S, RETRIES_SAVED = 0.2, 3.0, 100.0
"""What retries may add to the load: a fifth, and a few a second; unused ones are saved up."""

_MASK = (1 << 64) - 1


@dataclass(slots=True)
class _Bench:
    """An engine that is left alone, or was until lately."""

    since: float
    until: float


class Fleet:
    """One worker's own view of the engines.

    Synchronous, for the event loop's thread alone. ``seed`` differs between workers and starts.
    """

    def __init__(self, *, now: Callable[[], float], seed: bytes) -> None:
        self._now = now
        self._seed = seed
        self._drawn = count()
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._benched: dict[str, _Bench] = {}
        self._salts: dict[str, int] = {}
        self._retries = RETRIES_SAVED
        self._refilled = now()

    def begin(self, engine_id: str) -> None:
        """A call goes to this engine; ``end`` follows, exactly once."""
        self._calls[engine_id] += 1
        self._retries += RETRIES_PER_REQUEST

    def end(self, engine_id: str, *, failed: bool) -> None:
        """It is over. ``failed``: the connection was refused, or broke without a word.

        An answer of any status is no failure: the engine is there.
        """
        self._calls[engine_id] -= 1
        if failed:
            self._bench(engine_id)
        elif self._benched:
            self._benched.pop(engine_id, None)

    def calls(self, engine_id: str) -> int:
        """How many calls of this worker the engine has under way."""
        return self._calls[engine_id]

    def benched(self, engine_id: str) -> bool:
        """Whether the engine is left alone for now."""
        bench = self._benched.get(engine_id)
        return bench is not None and self._now() < bench.until

    def may_retry(self) -> bool:
        """Whether the budget has a retry left, which is then spent."""
        now = self._now()
        self._retries += (now - self._refilled) * RETRIES_PER_S
        self._retries = min(self._retries, RETRIES_SAVED)
        self._refilled = now
        if self._retries < 1:
            return False
        # The retry's own ``begin`` is no new request.
        self._retries -= 1 + RETRIES_PER_REQUEST
        return True

    def order(
        self, engines: Sequence[EngineReport], model: str, sticky: bytes | None
    ) -> Sequence[EngineReport]:
        """The engines in the order in which to try them.

        First the one that most likely has ``model`` and what is ``sticky`` in its caches, if it
        is not much busier than the least busy (SLACK); the others follow by load. Engines that
        failed lately are left out; when all did, the one that has waited longest comes first.
        """
        if len(engines) < 2:
            return engines
        up = engines
        if self._benched:
            up = [engine for engine in engines if not self.benched(engine.engine_id)]
        if not up:
            return sorted(engines, key=lambda engine: self._benched[engine.engine_id].since)
        key = _number(model.encode() + b"\0" + (sticky or b""))
        by_load = sorted(
            (self._calls[engine.engine_id], -self._affinity(engine.engine_id, key), index)
            for index, engine in enumerate(up)
        )
        least = by_load[0][0]
        most = least + SLACK + least // 4
        first = min((entry for entry in by_load if entry[0] <= most), key=lambda entry: entry[1:])
        return [up[first[2]], *(up[entry[2]] for entry in by_load if entry is not first)]

    def fresh(self) -> bytes:
        """A value that no call has had: to draw with for a call that nothing binds to others."""
        return b"%b:%d" % (self._seed, next(self._drawn))

    def _bench(self, engine_id: str) -> None:
        now = self._now()
        last = self._benched.get(engine_id)
        if last is None:
            self._benched[engine_id] = _Bench(now, now + BENCH_S)
        elif now >= last.until:  # before that, only calls fail that were under way already
            length = min(2 * (last.until - last.since), LONGEST_BENCH_S)
            self._benched[engine_id] = _Bench(now, now + length)

    def _affinity(self, engine_id: str, key: int) -> int:
        """Rendezvous hashing: every worker ranks the engines alike, and when one comes or goes
        only its own share moves. The mixing is that of splitmix64."""
        salt = self._salts.get(engine_id)
        if salt is None:
            salt = self._salts[engine_id] = _number(engine_id.encode())
        mixed = ((salt ^ key) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)


def _number(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest())
