"""The file that all workers of a machine count in: a page of header, then a slot a key.

The file is mapped into every worker. Whoever writes to a slot holds a lock of the operating
system on the slot's stripe, so that a worker that dies lets go of it. Each store is one aligned
word, hence never half done; what a sequence of stores leaves when its process is killed between
two of them is put right by ``heal``, with these rules:

* a worker's cell counts what that worker has under way. Its calls are raised before any sum is
  and lowered after all of them, so a sum that may be wrong belongs to a cell that has calls;
* what is taken from a bucket or a budget is one word each, and errs by at most the request that
  was being written when its worker was killed.

A power cut takes what the system had not yet written, some 30 s.
"""

import fcntl
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from gateway.errors import LimitsUnusable, Unavailable
from gateway.limits.bucket import worth
from gateway.limits.window import DAY

WORKERS = 56
"""So many may share a table at once."""
STRIPES = 8

# A slot's words.
DIGEST, LAST, REQUESTS, TOKENS, RATE, RUNNING, TOKENS_KEPT, MONEY_KEPT = 0, 2, 3, 4, 5, 6, 7, 8
WINDOWS = 16  # three words a window: its beginning, tokens used, money used
CELLS = 32  # four words a worker: what it has under way
SLOT = CELLS + 4 * WORKERS

# A cell's words.
CALLS, TAKEN, TOKENS_HELD, MONEY_HELD, CELL = 0, 1, 2, 3, 4

# The header's words.
_MAGIC, _VERSION, _CLAIMED, _REUSED, _ALIVE, _HEADER = 0, 1, 2, 3, 64, 512

MAGIC = int.from_bytes(b"ratchet!", "little")
VERSION = 1
_WORD = 8
_FIRST = 64  # slots of a new file

Digest = tuple[int, int]
Words = memoryview


def digest(key_id: str) -> Digest:
    """The key as a slot knows it; the first word is never 0, which means a free slot."""
    raw = blake2b(key_id.encode(), digest_size=16).digest()
    return int.from_bytes(raw[:8], "little", signed=True) or 1, int.from_bytes(
        raw[8:], "little", signed=True
    )


def anybody(_digest: Digest) -> bool:
    """Every key is still in use, as far as one knows."""
    return True


class Table:
    """One opening of the file. Not for several threads: the locks are the opening's own."""

    def __init__(self, directory: Path) -> None:
        """Raises LimitsUnusable for a file that is not ours to count in."""
        self._path = directory / "table"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.stripes = [_open(directory / f"stripe-{n}") for n in range(STRIPES)]
            self._lock = _open(directory / "claims")
            self._fd = _open(self._path)
        except OSError as error:
            raise LimitsUnusable(f"cannot count in {directory}: {error.strerror}") from error
        self._index: dict[Digest, int] = {}
        self._seen = self._reused = 0
        with Held(self._lock):
            self._begin()

    def close(self) -> None:
        for fd in (*self.stripes, self._lock, self._fd):
            os.close(fd)

    def find(self, key: Digest) -> int | None:
        """The number of the key's slot."""
        with Held(self._lock):
            self._catch_up()
            return self._index.get(key)

    def claim(self, key: Digest, now: int, in_use: Callable[[Digest], bool] = anybody) -> int:
        """The number of the key's slot, from now on. Raises Unavailable when the disk is full.

        Before the file grows, slots are taken over that nobody has touched for a day and whose
        keys are not ``in_use`` any more.
        """
        with Held(self._lock):
            self._catch_up()
            number = self._index.get(key)
            if number is None:
                number = self._free(now, in_use)
                words = self.words(number)
                words[:] = memoryview(bytes(SLOT * _WORD)).cast("q")
                words[LAST], words[DIGEST + 1] = now, key[1]
                words[DIGEST] = key[0]  # last: only now it is somebody's
                self._index[key] = number
            return number

    def words(self, number: int) -> Words:
        """The slot. It stays valid when the file grows."""
        start = _HEADER + number * SLOT
        return self._all[start : start + SLOT]

    def stripe(self, number: int) -> int:
        """What to lock for that slot."""
        return self.stripes[number % STRIPES]

    def enlist(self, worker: int) -> None:
        self._all[_ALIVE + worker] = 1

    def enlisted(self) -> list[int]:
        """Whose cells may hold something: the living, and the dead that nobody healed yet."""
        return [n for n in range(WORKERS) if self._all[_ALIVE + n]]

    def heal(self, worker: int) -> int:
        """Give back what a dead worker had under way, and say how many calls that was.

        Call it holding that worker's life.
        """
        with Held(self._lock):
            self._catch_up()
        cell = CELLS + CELL * worker
        calls = self._all[_HEADER + cell :: SLOT].tolist()[: self._seen]
        for number in (number for number, n in enumerate(calls) if n):
            with Held(self.stripe(number)):
                _healed(self.words(number), cell)
        self._all[_ALIVE + worker] = 0
        return sum(calls)

    def _begin(self) -> None:
        size = os.fstat(self._fd).st_size
        if size == 0:
            self._grow(_FIRST)
        self._map()
        header = self._all
        if header[_MAGIC] == header[_VERSION] == 0:  # new, or its maker was killed at it
            header[_VERSION] = VERSION
            header[_MAGIC] = MAGIC
        if (header[_MAGIC], header[_VERSION]) != (MAGIC, VERSION):
            found = f"version {header[_VERSION]}" if header[_MAGIC] == MAGIC else "something else"
            raise LimitsUnusable(
                f"{self._path} is {found}, and this gateway counts in version {VERSION}. Stop all "
                f"workers and move it away (mv {self._path} {self._path}.old): counting begins "
                "anew then, budgets too"
            )

    def _grow(self, slots: int) -> None:
        """Reserved on the disk: storing to a mapped page that finds no room kills the process."""
        try:
            os.posix_fallocate(self._fd, 0, (_HEADER + slots * SLOT) * _WORD)
        except OSError as error:
            raise Unavailable(
                f"the key's use cannot be counted: {self._path} cannot grow: {error.strerror}"
            ) from error

    def _map(self) -> None:
        size = os.fstat(self._fd).st_size
        if size < (_HEADER + SLOT) * _WORD:
            raise LimitsUnusable(f"{self._path} is cut short; move it away to begin counting anew")
        self._slots = (size // _WORD - _HEADER) // SLOT
        self._all: Words = memoryview(mmap.mmap(self._fd, size)).cast("q")

    def _catch_up(self) -> None:
        """Learn of the slots that others have claimed. A walk over all only after a reuse."""
        claimed, reused = self._all[_CLAIMED], self._all[_REUSED]
        if reused != self._reused:
            self._index.clear()
            self._seen, self._reused = 0, reused
        if claimed > self._slots:
            self._map()
        for number in range(self._seen, claimed):
            self._learn(number)
        self._seen = claimed

    def _learn(self, number: int) -> None:
        words = self.words(number)
        if words[DIGEST]:
            self._index[words[DIGEST], words[DIGEST + 1]] = number

    def _free(self, now: int, in_use: Callable[[Digest], bool]) -> int:
        if self._seen == self._slots:
            self._reap(now, in_use)
            for number in range(self._seen):
                if not self._all[_HEADER + number * SLOT + DIGEST]:
                    return number
            self._grow(2 * self._slots)
            self._map()
        number = self._seen
        self._seen += 1
        self._all[_CLAIMED] = self._seen
        return number

    def _reap(self, now: int, in_use: Callable[[Digest], bool]) -> None:
        for key, number in list(self._index.items()):
            words = self.words(number)
            if in_use(key):
                continue
            with Held(self.stripe(number)):
                if words[LAST] + DAY < now and not words[RUNNING]:
                    # First: whoever finds the slot changed has to see that it was reused.
                    self._all[_REUSED] = self._reused = self._all[_REUSED] + 1
                    words[DIGEST] = 0
                    del self._index[key]


class Held:
    """A lock for the length of a block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)


class Life:
    """A worker's place among the others, held until its process ends, however it does."""

    def __init__(self, fd: int, worker: int) -> None:
        self.worker = worker
        self._fd = fd

    @classmethod
    def take(cls, directory: Path, worker: int) -> "Life | None":
        """None: it is somebody's who is alive."""
        fd = _open(directory / f"worker-{worker}")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd, worker)

    @classmethod
    def any(cls, directory: Path) -> "Life":
        """Raises LimitsUnusable when so many workers live already."""
        for worker in range(WORKERS):
            if life := cls.take(directory, worker):
                return life
        raise LimitsUnusable(f"{WORKERS} workers count in {directory} already; no more can")

    def end(self) -> None:
        with suppress(OSError):
            os.close(self._fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _healed(words: Words, cell: int) -> None:
    """Clear a dead worker's cell; the sums are those of the cells that are left."""
    if rate := words[RATE]:
        words[TOKENS] -= worth(words[cell + TAKEN], rate)
    words[cell + TAKEN] = 0
    for place, of in ((RUNNING, CALLS), (TOKENS_KEPT, TOKENS_HELD), (MONEY_KEPT, MONEY_HELD)):
        words[place] = sum(words[CELLS + of :: CELL].tolist()) - words[cell + of]
    words[cell + TOKENS_HELD] = words[cell + MONEY_HELD] = 0
    words[cell + CALLS] = 0  # last: healing may be interrupted too
