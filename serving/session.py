"""A child's family: the processes of the session it leads, remembered, found and ended."""

import json
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

_SAME_START_S = 2.0
_GONE_WITHIN_S, _GONE_POLL_S = 5.0, 0.02


def end_orphans(pid_file: Path) -> bool:
    """Kill the group that ``pid_file`` remembers, if it is still that one; whether it was.

    Blocks for up to some seconds. A process id that was given to another process since is
    recognised by its start time and left alone.
    """
    try:
        kept = json.loads(pid_file.read_text())
        pid, started = int(kept["pid"]), float(kept["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    try:
        ours = abs(psutil.Process(pid).create_time() - started) < _SAME_START_S
    except psutil.NoSuchProcess:
        ours = True  # the leader is gone; whoever is left in its session is its family
    family = _session(pid, since=started) if ours else ()
    if family:
        log.warning("ending process group %d, which a dead predecessor left behind", pid)
        end_session(pid)
    pid_file.unlink(missing_ok=True)
    return bool(family)


def remember(pid_file: Path, pid: int) -> None:
    """Keep a session leader's id and start time, for a successor that has to end it."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = time.time()
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    draft = pid_file.with_suffix(pid_file.suffix + ".new")
    draft.write_text(json.dumps({"pid": pid, "started": started}))
    draft.replace(pid_file)


def _session(leader: int, *, since: float) -> tuple[psutil.Process, ...]:
    """The living members of the session that ``leader`` led."""
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if (
                os.getsid(process.pid) == leader
                and process.status() != psutil.STATUS_ZOMBIE
                and process.create_time() >= since - _SAME_START_S
            ):
                members.append(process)
    return tuple(members)


def end_session(leader: int) -> None:
    """Kill what is left of a group and wait until it is gone, so that its ports are free."""
    if not signal_session(leader, signal.SIGKILL):
        return
    deadline = time.monotonic() + _GONE_WITHIN_S
    # A dead process that its new parent has not yet collected holds nothing any more.
    while _session(leader, since=0.0) and time.monotonic() < deadline:
        time.sleep(_GONE_POLL_S)


def signal_session(leader: int, number: signal.Signals) -> bool:
    """Send a signal to the leader's whole group; whether anybody was there."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True
