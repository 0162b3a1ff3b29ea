"""The rows of files: JSON lines or one JSON array, gzip or plain, in constant memory."""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.errors import ImportFailed

_SUFFIXES: Final = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
LONGEST: Final = 64 << 20
"""A row of more bytes is taken for a file of another kind."""
_CHUNK: Final = 1 << 20

_BETWEEN: Final = re.compile(r"[\s,]*")

_File = io.BufferedReader | gzip.GzipFile


def files(path: Path, skip: Collection[str] = ()) -> Iterator[Path]:
    """``path`` itself, or what lies anywhere below it, in order, but in folders called ``skip``.

    Raises ImportFailed when there is nothing.
    """
    if not path.exists():
        raise ImportFailed(f"{path} is not there")
    if not path.is_dir():
        yield path
        return
    found = False
    for folder, below, names in os.walk(path):
        below[:] = sorted(set(below) - set(skip))
        for name in sorted(names):
            if name.endswith(_SUFFIXES):
                found = True
                yield Path(folder) / name
    if not found:
        raise ImportFailed(f"{path} holds no file named {', '.join(_SUFFIXES)}")


def rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each row of a file, as JSON text, with its number: of its line, or in its array.

    Raises ImportFailed when the file cannot be read to its end; what came before is good.
    """
    number = 0
    try:
        with _opened(path) as file:
            read = _array(file) if _is_array(file) else _lines(file)
            for number, row in read:
                yield number, row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise ImportFailed(
            f"{path} breaks off after row {number}: {error}. What came before is taken; get the "
            "file anew and import it again: nothing is doubled"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    with path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
            return
        # Several gzip members after each other, as concatenated downloads are, read as one.
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked


def _is_array(file: _File) -> bool:
    return file.peek(64).removeprefix(_BOM).lstrip()[:1] == b"["


def _lines(file: _File) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) == LONGEST:
            raise ValueError(f"line {number} is longer than {LONGEST >> 20} MiB: no JSON lines")
        line = line.removeprefix(_BOM).strip()
        if line:
            yield number, line


def _array(file: _File) -> Iterator[tuple[int, bytes]]:
    """The elements of one array, each decoded as soon as it is whole."""
    text = codecs.getincrementaldecoder("utf-8-sig")()
    decode = json.JSONDecoder().raw_decode
    buffer = text.decode(file.read(max(_CHUNK, 64))).lstrip()
    at, number = 1, 0
    while True:
        at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]
        if buffer.startswith("]", at):
            return
        try:
            end = decode(buffer, at)[1]
        except json.JSONDecodeError as error:
            # As much again each time, so that a long element is not decoded too often.
            more = file.read(max(_CHUNK, len(buffer) - at))
            if not more or len(buffer) - at > LONGEST:
                raise ValueError(f"the array is cut or broken: {error}") from error
            buffer, at = buffer[at:] + text.decode(more), 0
            continue
        number += 1
        yield number, buffer[at:end].encode()
        at = end
