"""Hostile files are contained, and the next call of an honest one works."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.errors import CallFailed, CodeInvalid
from gateway.sandbox import Limits, Sandbox, lacking

pytestmark = pytest.mark.skipif(bool(lacking()), reason=str(lacking()))

Make = Callable[..., Awaitable[Sandbox]]
EVIL: dict[str, object] = {"evil": True}
HONEST: dict[str, object] = {"evil": False, "text": "hallo, wörld"}
QUICK = Limits(wall_s=1.0, memory=256 << 20, output=1 << 20, workers=1)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes a sandbox of a function that gives back what it gets, unless that is evil."""
    made = []

    async def make(evil: str, limits: Limits = QUICK) -> Sandbox:
        file = tmp_path / "file.py"
        file.write_text(
            "import ctypes, os, resource, signal, subprocess, sys, threading, time\n"
            "def f(call):\n    if not call['evil']:\n        return call\n"
            + textwrap.indent(textwrap.dedent(evil), "    ")
        )
        sandbox = Sandbox(file, "f", limits)
        made.append(sandbox)
        await sandbox.start()
        return sandbox

    yield make
    for sandbox in made:
        await sandbox.close()


async def ask(sandbox: Sandbox, call: dict[str, object]) -> Any:
    return json.loads(await sandbox.call(json.dumps(call).encode()))


async def test_there_is_next_to_nothing_to_see(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s")
    sandbox = await make(
        f"""
        paths = ["/etc/passwd", "/root/.bashrc", "/home", "/proc", "/sys", "/run", "/var", "/opt"]
        paths += [{str(tmp_path)!r}, {str(Path(__file__).parent)!r}, {psutil.__file__!r}]
        ids = os.getpid(), os.getuid(), os.uname().nodename
        environment = sorted(os.environ)
        return [*filter(os.path.exists, paths)], environment, os.listdir("/tmp"), ids, sys.path
        """
    )

    seen, environment, temporary, (pid, user, host), path = await ask(sandbox, EVIL)

    assert seen == temporary == []
    assert set(environment) <= {"LC_CTYPE", "PWD"}
    assert (pid, user, host) == (2, 65534, "sandbox")
    assert not [one for one in path if "site-packages" in one or "work" in one]
    assert await ask(sandbox, HONEST) == HONEST


@pytest.mark.parametrize("place", ["/x", "/tmp/x", "/dev/x", "/usr/lib/x", "/inside.py"])
async def test_there_is_nowhere_to_write(make: Make, place: str) -> None:
    sandbox = await make(f"open({place!r}, 'w')")

    with pytest.raises(CallFailed, match=r"(OSError|PermissionError) at line 5"):
        await ask(sandbox, EVIL)

    assert await ask(sandbox, HONEST) == HONEST


async def test_nobody_can_be_reached(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sandbox = await make(
            f"""
            import socket
            socket.create_connection(("127.0.0.1", {port}), 0.5)
            """
        )

        with pytest.raises(CallFailed, match="PermissionError"):
            await ask(sandbox, EVIL)

        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert await ask(sandbox, HONEST) == HONEST


@pytest.mark.parametrize(
    ("evil", "why"),
    [
        ("while True: os.fork()", "PermissionError"),
        ("subprocess.Popen([sys.executable])", "PermissionError"),
        ("os.posix_spawn(sys.executable, [sys.executable], {})", "PermissionError"),
        ("threading.Thread(target=time.sleep, args=[60]).start()", "RuntimeError"),
        ("return 'x' * (1 << 30)", "MemoryError"),
        ("kept = [bytearray(1 << 20) for _ in range(1 << 20)]", "MemoryError"),
        ("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ValueError"),
        ("return [open('/dev/null') for _ in range(2000)]", "OSError"),
        ("while True: pass", "no answer within 1 s"),
        ("time.sleep(60)", "no answer within 1 s"),
        ("while True: print('x' * 1_000_000, flush=True)", "no answer within 1 s"),
        ("return 'x' * 2_000_000", "more than 1048576 bytes"),
        ("return object()", "TypeError with what it returned"),
        ("return {1: float('nan')}", "ValueError with what it returned"),
        ("return chr(0xd800) + str(f(call))", "RecursionError"),
        ("sys.setrecursionlimit(1 << 30); return f(call)", "died|no answer|MemoryError"),
        ("ctypes.string_at(0)", "died"),
        ("os._exit(0)", "died"),
        ("sys.exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise type('E' * 100_000, (Exception,), {})", "E{500}$"),
        ("os.kill(os.getpid(), 9)", "died"),
        ("os.kill(0, 9)", "died"),
    ],
)
async def test_what_is_not_allowed_fails_alone(make: Make, evil: str, why: str) -> None:
    sandbox = await make(evil)

    with pytest.raises(CallFailed, match=why):
        await ask(sandbox, EVIL)

    assert await ask(sandbox, HONEST) == HONEST


async def test_nobody_else_can_be_killed(make: Make) -> None:
    sandbox = await make(
        f"""
        for one in (1, os.getppid(), -1, {os.getpid()}):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return "alive"
        """
    )

    assert await ask(sandbox, EVIL) == "alive"

    assert await ask(sandbox, HONEST) == HONEST


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",
        "unshare(0x20000)",
        "mount(b'none', b'/tmp', b'tmpfs', 0, 0)",
        "ptrace(0, 0, 0, 0)",
        "syscall(435, bytes(88), 88)",
        "syscall(425, 1, bytes(120))",
        "syscall(319, b'm', 0)",
        "shmget(0, 1 << 30, 0o600)",
    ],
)
async def test_the_kernel_is_asked_in_vain(make: Make, call: str) -> None:
    sandbox = await make(f"return ctypes.CDLL(None).{call}")

    assert await ask(sandbox, EVIL) == -1

    assert await ask(sandbox, HONEST) == HONEST


async def test_an_answer_cannot_be_forged_by_writing(make: Make) -> None:
    forged = json.dumps({"action": "allow"}).encode()
    frame = bytes(17) + len(forged).to_bytes(4, "big") + forged
    sandbox = await make(
        f"""
        for descriptor in range(1024):
            try:
                os.write(descriptor, {frame!r})
            except OSError:
                pass
        return 'mine'
        """
    )

    with pytest.raises(CallFailed, match="it gave what is no answer"):
        await ask(sandbox, EVIL)

    assert await ask(sandbox, HONEST) == HONEST


async def test_what_is_printed_is_no_answer(make: Make) -> None:
    sandbox = await make(
        """
        print('{"action": "allow"}', flush=True)
        os.write(2, b"x" * 1_000_000)
        return 'mine'
        """
    )

    assert await ask(sandbox, EVIL) == "mine"

    assert await ask(sandbox, HONEST) == HONEST


async def test_what_is_left_behind_does_not_answer_for_the_next_call(make: Make) -> None:
    sandbox = await make(
        """
        def late(*_):
            for descriptor in range(1024):
                try:
                    os.write(descriptor, bytes(40))
                except OSError:
                    pass
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        time.sleep(0.01) if call.get('now') else None
        return 'fine'
        """
    )

    assert await ask(sandbox, EVIL) == "fine"
    # It wrote after its answer, to be taken for the next one: that one is another process'.
    answers = [await asyncio.gather(ask(sandbox, HONEST), return_exceptions=True) for _ in "123"]

    assert [HONEST] in answers
    for [answer] in answers:
        assert answer == HONEST or isinstance(answer, CallFailed)


async def test_calls_take_turns_and_busy_ones_are_told(make: Make) -> None:
    sandbox = await make("time.sleep(60)", Limits(wall_s=1.0, workers=2))

    calls = [ask(sandbox, HONEST | {"number": number}) for number in range(50)]
    answers = await asyncio.gather(*calls)
    stuck = [ask(sandbox, EVIL) for _ in range(3)]
    failures = await asyncio.gather(*stuck, return_exceptions=True)

    assert [answer["number"] for answer in answers] == list(range(50))
    assert {type(failure) for failure in failures} == {CallFailed}
    assert await ask(sandbox, HONEST) == HONEST


async def test_a_worn_process_is_replaced_between_calls(make: Make) -> None:
    sandbox = await make(
        """
        while time.process_time() < 1.2: pass
        return os.getpid()
        """,
        Limits(wall_s=5.0, cpu_s=2, workers=1),
    )

    for _ in range(3):
        assert await ask(sandbox, EVIL) == 2

    assert await ask(sandbox, HONEST) == HONEST


async def test_a_call_that_is_given_up_leaves_no_answer_for_the_next(make: Make) -> None:
    sandbox = await make("time.sleep(0.05); return 'late'")

    task = asyncio.create_task(ask(sandbox, EVIL))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert await ask(sandbox, HONEST) == HONEST


async def test_closed_it_leaves_no_process(make: Make) -> None:
    sandbox = await make("pass")
    before = _rooms(os.getpid())

    await sandbox.close()
    _, left = psutil.wait_procs(before, timeout=10)

    assert len(before) >= 2
    assert left == []


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("x = 1\ndef f(:\n", ":2: "),
        ("x = 1\n", ":1: there is no function f in it"),
        ("f = 3\n", ":1: there is no function f in it"),
        ("x = 1\n\nimport torch\n", ":3: ModuleNotFoundError: No module named 'torch'"),
        ("import os\nos._exit(0)\n", ":1: its process died as it loaded"),
        ("raise SystemExit\n", ":1: SystemExit"),
    ],
)
async def test_a_broken_file_is_told_of_by_name_and_line(
    tmp_path: Path, source: str, where: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    sandbox = Sandbox(file, "f", QUICK)

    with pytest.raises(CodeInvalid) as caught:
        await sandbox.start()
    await sandbox.close()

    assert str(caught.value).startswith(f"{file}{where}")
    assert _rooms(os.getpid()) == []


async def test_a_file_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(CodeInvalid, match=r"gone\.py: it cannot be read"):
        await Sandbox(tmp_path / "gone.py", "f", QUICK).start()


def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("def f(call): pass\n")
    owner = f"""
    import asyncio
    from pathlib import Path
    from gateway.sandbox import Limits, Sandbox
    async def main():
        sandbox = Sandbox(Path({str(tmp_path / "file.py")!r}), "f", Limits())
        await sandbox.start()
        print("ready", flush=True)
        await asyncio.Event().wait()
    asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(owner)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        rooms = _rooms(process.pid)

        process.send_signal(signal.SIGKILL)
        _, left = psutil.wait_procs(rooms, timeout=10)

    assert len(rooms) >= 2
    assert left == []


def _rooms(owner: int) -> list[psutil.Process]:
    """The processes of all rooms that a process has opened."""
    rooms = [child for child in psutil.Process(owner).children() if child.name() == "bwrap"]
    return [*rooms, *(inside for room in rooms for inside in room.children(recursive=True))]
