"""What sandboxed code cannot ask of the kernel, as a seccomp program."""

import errno
import struct
from collections.abc import Iterator

from gateway.errors import SandboxUnusable

_ARCHES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""By machine, the kernel's name for it and the column of ``_DENIED``."""

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # Processes and threads: none can be left behind, and no rlimit stops root's from multiplying.
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    # Sockets: not every kind is cut off by a network namespace.
    "socket": (41, 198),
    # Memory that no rlimit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # Other namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # What has let code out of sandboxes before and no grading or guarding needs.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The machine's.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
}
_CLONE3 = 435
_X32 = 0x40000000
"""From here on, x86-64's second set of numbers for the same calls."""

_LOAD, _EQUALS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ARCH, _NUMBER = 4, 0
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def program(machine: str) -> bytes:
    """For ``bwrap --seccomp``. Raises SandboxUnusable for a machine whose numbers are unknown."""
    if machine not in _ARCHES:
        known = ", ".join(_ARCHES)
        raise SandboxUnusable(f"sandboxes work on {known}, not on {machine}")
    return b"".join(struct.pack("=HBBI", *one) for one in _instructions(*_ARCHES[machine]))


def _instructions(arch: int, column: int) -> Iterator[tuple[int, int, int, int]]:
    yield _LOAD, 0, 0, _ARCH
    yield _EQUALS, 1, 0, arch
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER
    yield _AT_LEAST, 0, 1, _X32
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    # The C library then tries what it tried before there was a clone3.
    yield _EQUALS, 0, 1, _CLONE3
    yield _RETURN, 0, 0, _ERROR | errno.ENOSYS
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            yield _EQUALS, 0, 1, number
            yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW
