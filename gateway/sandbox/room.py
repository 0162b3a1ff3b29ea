"""The room that sandboxed code runs in: what of this machine is there, which is little."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from gateway.errors import SandboxUnusable
from gateway.sandbox.syscalls import program

INSTALL = "apt-get install -y bubblewrap"
"""The command that brings what is missing."""

_NOBODY = "65534"
_INSIDE = Path(__file__).with_name("inside.py")
_DOOR = "/inside.py"
_CHECK_S = 10.0


def lacking() -> str | None:
    """Why nothing can be sandboxed on this machine, and what to do; None when it can."""
    try:
        process, told = opened(["-c", ""])
    except SandboxUnusable as error:
        return str(error)
    with told, process:
        try:
            process.wait(_CHECK_S)
        except subprocess.TimeoutExpired:
            process.kill()
        return refused(told)


def opened(
    arguments: Sequence[str] = (_DOOR,), stdin: int = subprocess.DEVNULL
) -> tuple["subprocess.Popen[bytes]", IO[bytes]]:
    """A Python in a room of its own, and the file with what bwrap says of it.

    It ends with the thread that opened it. Raises SandboxUnusable.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnusable(f"bubblewrap is not installed; {INSTALL}")
    told = tempfile.TemporaryFile()  # noqa: SIM115 - the caller reads it
    rules = os.memfd_create("seccomp")
    try:
        os.write(rules, program(platform.machine()))
        os.lseek(rules, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [bwrap, *_walls(rules), _python(), "-I", "-S", "-B", *arguments],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=told,
            env={},
            cwd="/",
            pass_fds=(rules,),
            start_new_session=True,
        )
    except BaseException:
        told.close()
        raise
    finally:
        os.close(rules)
    return process, told


def refused(told: IO[bytes]) -> str | None:
    """What bwrap said of a room that it could not make; nothing when it could."""
    told.seek(0)
    lines = told.read(2000).decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return None
    why = lines[-1]
    return (
        f"bubblewrap cannot make a sandbox here: {why} (user namespaces must be allowed: "
        "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0; "
        "in a container, a seccomp profile that allows them)"
    )


def _walls(rules: int) -> Iterator[str]:
    yield from ("--unshare-user", "--unshare-all", "--die-with-parent", "--new-session")
    yield from ("--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL", "--hostname", "sandbox")
    for path in _there():
        yield from ("--ro-bind", path, path)
    for name in ("/lib", "/lib32", "/lib64"):
        if Path(name).is_symlink():
            yield from ("--symlink", str(Path(name).readlink()), name)
    yield from ("--ro-bind", str(_INSIDE), _DOOR, "--dir", "/tmp")  # noqa: S108 - its own
    for device in ("/dev/null", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
    yield from ("--remount-ro", "/", "--chdir", "/", "--seccomp", str(rules))


def _python() -> str:
    """The interpreter itself, which is outside of a virtual environment."""
    executable: str = getattr(sys, "_base_executable", sys.executable)
    return os.path.realpath(executable)


def _there() -> Iterator[str]:
    """What Python needs, where it is: itself, its library, the system's libraries."""
    library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME"))
    needed = [
        *map(Path, ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64")),
        Path("/etc/ld.so.cache"),
        Path(_python()),
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})),
        library,
    ]
    for path in dict.fromkeys(needed):
        if path.exists() and not path.is_symlink():
            yield str(path)
