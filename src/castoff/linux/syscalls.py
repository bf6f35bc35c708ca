"""System calls that Python's standard library lacks, through ctypes.

Every function raises OSError, with the call's name in the message; callers translate that into an error of
`castoff.errors` where they know what it means. The module imports on any system; elsewhere than on Linux (x86-64 or
aarch64) each call gives ENOSYS. It imports very little: the sandbox's fork server starts with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 2
# the mount API of descriptors
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC if sys.platform == "linux" else 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
# clone(2); those for namespaces are in `castoff.linux.namespaces`
CLONE_PIDFD = 0x1000
SIGCHLD = 17
# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
# close_range(2)
CLOSE_RANGE_CLOEXEC = 4
# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1

# name: (x86-64, aarch64); calls younger than 2019 have one number everywhere
_NUMBERS = {
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "close_range": (436, 436),
    "execve": (59, 221),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "syncfs": (306, 267),
    "umount2": (166, 39),
    "unshare": (272, 97),
}
_MAX_RACES = 1000  # a try takes microseconds
_MACHINES = {"x86_64": 0, "aarch64": 1}
_COLUMN = _MACHINES.get(os.uname().machine) if sys.platform == "linux" else None

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter's lock, so that the child of a raw clone holds it too.
_libc_locked = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc_locked.syscall.restype = ctypes.c_long


def machine() -> str:
    """Return the machine's architecture as the kernel names it, such as ``x86_64``."""
    return os.uname().machine


def _number(name: str) -> int:
    if _COLUMN is None:
        raise OSError(errno.ENOSYS, f"{name}: not available on {sys.platform} {machine()}")
    return _NUMBERS[name][_COLUMN]


def _error(name: str, about: str = "") -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}({about}): {os.strerror(code)}")


def _call(name: str, *arguments: ctypes.c_long | ctypes.c_char_p | ctypes.c_void_p | None, about: str = "") -> int:
    result: int = _libc.syscall(ctypes.c_long(_number(name)), *arguments)
    if result < 0:
        raise _error(name, about)
    return result


def _text(path: str | bytes | None) -> ctypes.c_char_p:
    return ctypes.c_char_p(None if path is None else os.fsencode(path))


def _show(path: str | bytes | None) -> str:
    return "" if path is None else os.fsdecode(path)


def mount(
    source: str | bytes | None,
    target: str | bytes,
    fstype: str | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """Mount a file system, or change a mount (man 2 mount)."""
    _call(
        "mount",
        _text(source),
        _text(target),
        _text(fstype),
        ctypes.c_long(flags),
        _text(data),
        about=f"{fstype or _show(source)} on {_show(target)}",
    )


def umount(target: str | bytes, flags: int = 0) -> None:
    """Unmount a file system (man 2 umount2)."""
    _call("umount2", _text(target), ctypes.c_long(flags), about=_show(target))


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """Change the root mount of the mount namespace (man 2 pivot_root)."""
    _call("pivot_root", _text(new_root), _text(put_old), about=_show(new_root))


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """Open a mount, or a detached copy of it, and return a descriptor (man 2 open_tree)."""
    return _call("open_tree", ctypes.c_long(dirfd), _text(path), ctypes.c_long(flags), about=_show(path))


def move_mount(tree: int, target: str | bytes) -> None:
    """Attach the detached mount that is open as `tree`, where links in `target` lead (man 2 move_mount)."""
    _call(
        "move_mount",
        ctypes.c_long(tree),
        _text(b""),
        ctypes.c_long(AT_FDCWD),
        _text(target),
        ctypes.c_long(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS),
        about=_show(target),
    )


def mount_setattr(dirfd: int, path: str | bytes, flags: int, attributes: tuple[int, int]) -> None:
    """Set and clear attributes of a mount (man 2 mount_setattr).

    Args:
        dirfd: where a relative path begins.
        path: the mount; empty with AT_EMPTY_PATH for `dirfd` itself.
        flags: AT_EMPTY_PATH, AT_RECURSIVE.
        attributes: MOUNT_ATTR_* to set, and to clear.
    """
    value = ctypes.create_string_buffer(struct.pack("=4Q", attributes[0], attributes[1], 0, 0), 32)
    _call(
        "mount_setattr",
        ctypes.c_long(dirfd),
        _text(path),
        ctypes.c_long(flags),
        ctypes.cast(value, ctypes.c_void_p),
        ctypes.c_long(32),
        about=_show(path),
    )


def fsopen(fstype: str) -> int:
    """Open a context for a new file system and return a descriptor (man 2 fsopen)."""
    return _call("fsopen", _text(fstype), ctypes.c_long(1), about=fstype)


def fsconfig(context: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set an option of a file system context, or create the file system (man 2 fsconfig)."""
    _call(
        "fsconfig",
        ctypes.c_long(context),
        ctypes.c_long(command),
        _text(key),
        _text(value),
        ctypes.c_long(0),
        about=f"{key or ''}={value or ''}",
    )


def fsmount(context: int, attributes: int = 0) -> int:
    """Make a detached mount of a created file system and return a descriptor (man 2 fsmount)."""
    return _call("fsmount", ctypes.c_long(context), ctypes.c_long(1), ctypes.c_long(attributes))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (man 2 unshare)."""
    _call("unshare", ctypes.c_long(flags), about=f"{flags:#x}")


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace that is open as `descriptor` (man 2 setns)."""
    _call("setns", ctypes.c_long(descriptor), ctypes.c_long(kind), about=f"{kind:#x}")


def sethostname(name: str) -> None:
    """Set the host name of the UTS namespace (man 2 sethostname)."""
    data = os.fsencode(name)
    _call("sethostname", ctypes.c_char_p(data), ctypes.c_long(len(data)), about=name)


def prctl(option: int, *arguments: int) -> int:
    """Operate on the calling process (man 2 prctl)."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _call("prctl", ctypes.c_long(option), *[ctypes.c_long(value) for value in padded], about=str(option))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capability sets (bit masks) of the calling thread (man 2 capset)."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    masks = (effective, permitted, inheritable)
    low_and_high = [*[mask & 0xFFFFFFFF for mask in masks], *[mask >> 32 for mask in masks]]
    data = ctypes.create_string_buffer(struct.pack("=6I", *low_and_high), 24)
    _call("capset", ctypes.cast(header, ctypes.c_void_p), ctypes.cast(data, ctypes.c_void_p))


def seccomp_set_filter(program: bytes, flags: int = 0) -> int:
    """Install a BPF program as a system call filter (man 2 seccomp)."""
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)), 16)
    return _call(
        "seccomp", ctypes.c_long(SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags), ctypes.cast(header, ctypes.c_void_p)
    )


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open a file with limits on how its path is resolved (man 2 openat2)."""
    how = ctypes.create_string_buffer(struct.pack("=3Q", flags | OPEN_TREE_CLOEXEC, mode, resolve), 24)
    arguments = (
        ctypes.c_long(dirfd),
        _text(path),
        ctypes.cast(how, ctypes.c_void_p),
        ctypes.c_long(24),
    )
    for _ in range(_MAX_RACES):
        try:
            return _call("openat2", *arguments, about=_show(path))
        except OSError as error:
            # EAGAIN: something was renamed or mounted anywhere on the machine while a ".." was followed.
            if error.errno != errno.EAGAIN:
                raise
    return _call("openat2", *arguments, about=_show(path))


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close descriptors, or mark them to be closed by execve (man 2 close_range)."""
    _call("close_range", ctypes.c_long(first), ctypes.c_long(last), ctypes.c_long(flags))


def syncfs(descriptor: int) -> None:
    """Write out the file system that an open file is on (man 2 syncfs)."""
    _call("syncfs", ctypes.c_long(descriptor))


def pidfd_open(pid: int) -> int:
    """Return a descriptor of a process (man 2 pidfd_open)."""
    return _call("pidfd_open", ctypes.c_long(pid), ctypes.c_long(0), about=str(pid))


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process that a descriptor stands for (man 2 pidfd_send_signal)."""
    _call("pidfd_send_signal", ctypes.c_long(pidfd), ctypes.c_long(number), None, ctypes.c_long(0), about=str(number))


def clone(flags: int) -> tuple[int, int]:
    """Fork into new namespaces, and return (pid, pidfd) in the parent and (0, -1) in the child (man 2 clone).

    No handler of the C library or of Python runs, so this is for single-threaded processes only.
    """
    pidfd = ctypes.c_int(-1)
    pid: int = _libc_locked.syscall(
        ctypes.c_long(_number("clone")),
        ctypes.c_ulong(flags | CLONE_PIDFD | SIGCHLD),
        ctypes.c_long(0),
        ctypes.byref(pidfd),
        ctypes.c_long(0),
        ctypes.c_long(0),
    )
    if pid < 0:
        raise _error("clone", f"{flags:#x}")
    return (pid, pidfd.value) if pid else (0, -1)


def execve(path: bytes, argv: Sequence[bytes], env: Sequence[bytes]) -> None:
    """Replace the process by another program; returns only by raising (man 2 execve).

    Unlike os.execve, the environment is passed on exactly as given.
    """
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    _call(
        "execve",
        ctypes.c_char_p(path),
        ctypes.cast(arguments, ctypes.c_void_p),
        ctypes.cast(environment, ctypes.c_void_p),
        about=_show(path),
    )
