"""The three pages at the head of a DuckDB file, and what can be done when one is damaged.

The first says what the file is; of the other two the newer one, by its counter, says where the
last checkpoint is. Each begins with a checksum (DuckDB's ``single_file_block_manager.cpp``).
"""

from pathlib import Path

PAGE = 4096
_USED = 64
"""Bytes of a page that mean anything."""
_COUNTER = slice(8, 16)
_KIND = slice(40, 64)
"""Block and vector size and format: the same in both pages."""


def mend(damaged: Path, sound: Path) -> bool:
    """Restore the head of an unencrypted file in place, as far as it is certain what it was.

    ``sound`` is any other file of the same format. False when nothing could be done.
    """
    with sound.open("rb") as file:
        example = file.read(PAGE)
    with damaged.open("r+b") as file:
        first, *pages = (file.read(PAGE) for _ in range(3))
        if not is_sound(first):
            first = example
        for bad, good in ((0, 1), (1, 0)):
            if not is_sound(pages[bad]) and is_sound(pages[good]):
                pages[bad] = _restored(pages[bad], pages[good]) or pages[bad]
        if not all(is_sound(page) for page in (first, *pages)):
            return False
        file.seek(0)
        file.write(b"".join((first, *pages)))
    return True


def is_sound(page: bytes) -> bool:
    """Whether the page is whole and what its checksum says."""
    return len(page) == PAGE and page[:8] == checksum(page[8:])


def checksum(content: bytes) -> bytes:
    """DuckDB's checksum of whole words (``checksum.cpp``), as it is stored."""
    result = 5381
    for at in range(0, len(content), 8):
        word = int.from_bytes(content[at : at + 8], "little")
        result ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return result.to_bytes(8, "little")


def _restored(bad: bytes, good: bytes) -> bytes | None:
    """What the ``bad`` page was; the ``good`` one in its place where that is as good."""
    if len(bad) < PAGE:
        return None
    count = _number(good)
    padding = bytes(PAGE - _USED)
    for other in (count + 1, count - 1):
        for rest in (bad[16:], bad[16:_USED] + padding):
            content = other.to_bytes(8, "little", signed=True) + rest
            if checksum(content) == bad[:8]:
                return bad[:8] + content
    if _number(bad) == count - 1:  # the older one, which nobody reads
        return good
    if _number(bad) == count + 1 and bad[_KIND] == good[_KIND]:
        # Its checksum is wrong, or what nobody reads; if it is the place of the checkpoint
        # instead, what is found there has a checksum of its own.
        return checksum(bad[8:]) + bad[8:]
    return None


def _number(page: bytes) -> int:
    return int.from_bytes(page[_COUNTER], "little", signed=True)
