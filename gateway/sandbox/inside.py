"""The program in the room: loads a file once, then answers calls of one of its functions.

It runs alone, with nothing of this package beside it. What it is asked and answers goes over one
socket, in frames:

    asked      length, payload, then 16 random bytes that are read only once there is an answer
    answered   the 16 bytes, flags, length, payload

So whatever the function writes to whatever descriptor, it is no answer to this call.
"""

import fcntl
import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

FAILED, WORN = 1, 2
_ASKED = struct.Struct("!I")
_ANSWERED = struct.Struct("!16sBI")
_OUT_OF_SIGHT = 900
"""The socket's descriptor: beyond what the function can open itself."""
_MAX_STORY = 500

Loaded = Callable[[Any], Any]


class _Invalid(Exception):
    """The file is not what it should be. The message says where."""


def main() -> None:
    """Until the other side hangs up."""
    wire = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_SIGHT)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    asked = json.loads(_frame(wire))
    limits = asked["limits"]
    _limit(limits)
    try:
        function = _load(asked["source"], asked["file"], asked["function"])
    except _Invalid as error:
        _answer(wire, FAILED, str(error).encode())
        return
    _answer(wire, 0, b"")
    while True:
        flags, said = _call(function, _frame(wire), asked["file"], limits["output"])
        if time.process_time() > limits["cpu_s"] / 2:
            flags |= WORN
        _answer(wire, flags, said)


def _limit(limits: dict[str, int]) -> None:
    for which, most in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(which, (most, most))


def _load(source: str, file: str, name: str) -> Loaded:
    space: dict[str, Any] = {"__name__": "__sandbox__", "__file__": file}
    try:
        exec(compile(source, file, "exec"), space)  # noqa: S102 - that is what the room is for
    except SyntaxError as error:
        raise _Invalid(f"{file}:{error.lineno or 1}: {error.msg}") from None
    except BaseException as error:  # noqa: BLE001 - whatever it throws is its fault
        where = _line(error.__traceback__, file) or 1
        raise _Invalid(f"{file}:{where}: {type(error).__name__}: {error}"[:_MAX_STORY]) from None
    function = space.get(name)
    if not callable(function):
        raise _Invalid(f"{file}:1: there is no function {name} in it")
    return function  # type: ignore[no-any-return]


def _call(function: Loaded, payload: bytes, file: str, most: int) -> tuple[int, bytes]:
    """What it returns, as JSON; or what went wrong, without what was said."""
    try:
        said = json.dumps(function(json.loads(payload)), allow_nan=False).encode()
    except BaseException as error:  # noqa: BLE001 - here too
        line = _line(error.__traceback__, file)
        where = f" at line {line}" if line else " with what it returned"
        return FAILED, f"{type(error).__name__}{where}"[:_MAX_STORY].encode("utf-8", "replace")
    if len(said) > most:
        return FAILED, b"it returned more than %d bytes" % most
    return 0, said


def _line(trace: TracebackType | None, file: str) -> int | None:
    """The innermost line of the file that an error came through."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _frame(wire: int) -> bytes:
    return _read(wire, _ASKED.unpack(_read(wire, _ASKED.size))[0])


def _answer(wire: int, flags: int, said: bytes) -> None:
    whole = memoryview(_ANSWERED.pack(_read(wire, 16), flags, len(said)) + said)
    while whole:
        whole = whole[os.write(wire, whole) :]


def _read(wire: int, size: int) -> bytes:
    read = b""
    while len(read) < size:
        piece = os.read(wire, min(size - len(read), 1 << 20))
        if not piece:
            sys.exit()
        read = read + piece if read else piece
    return read


if __name__ == "__main__":
    main()
