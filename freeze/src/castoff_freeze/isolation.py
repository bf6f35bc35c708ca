"""Start a process in a root of its own: in namespaces where permitted, else by chroot, else beside everything else.

Runs inside of the session's process only, which has a single thread and ends with the session.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NoReturn

Isolation = Literal["namespaces", "chroot", "none"]

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
_DEVICES = ("null", "zero", "full", "random", "urandom")
_EXEC_FAILED = 127


@dataclass(frozen=True, slots=True)
class Process:
    """What to start.

    Attributes:
        root: folder that becomes ``/``; ``/`` itself leaves the files as they are.
        argv: the command line, its first word an absolute path inside of the root.
        environment: all of its variables.
        folder: its working folder inside of the root.
        uid: user and group that it runs as, where that is permitted.
        isolation: what the session's process has entered.
    """

    root: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    uid: int
    isolation: Isolation


class _Kernel:
    """The system calls that Python 3.11 lacks."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        self._check(self._libc.unshare(flags))

    def mount(self, source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        words = [os.fsencode(word) for word in (source, target, kind, options)]
        self._check(self._libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))

    def prctl(self, option: int, value: int) -> None:
        self._check(self._libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))

    def _check(self, result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def enter(uid: int) -> None:
    """Move this process into namespaces of its own: its children have no network but loopback, and their own processes.

    Args:
        uid: as which the children will run; an ordinary user's own id is mapped to it.

    Raises:
        OSError: the kernel or its policy refuses.
    """
    kernel = _Kernel()
    flags = _NEWNS | _NEWIPC | _NEWPID | _NEWNET
    if os.geteuid() == 0:
        kernel.unshare(flags)
    else:
        mine, group = os.geteuid(), os.getegid()
        kernel.unshare(flags | _NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {mine} 1"),
            ("gid_map", f"{uid} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    kernel.mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    loopback_up()
    _fork_first_process(kernel)


def _fork_first_process(kernel: _Kernel) -> None:
    """Fork the process 1 of the new processes' namespace, which lives as long as this process.

    The service must not be it: a process 1 ignores SIGTERM unless it handles it, and no process could be started after
    it has ended.
    """
    if os.fork():
        return
    with suppress(BaseException):
        kernel.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        os.closerange(0, 1 << 16)
        while True:
            signal.pause()
    os._exit(0)


def loopback_up() -> None:
    """Bring up the loopback interface of this network namespace.

    Raises:
        OSError: the kernel refused.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, 0x8913, struct.pack("16sH14x", b"lo", 0))  # SIOCGIFFLAGS
        flags = struct.unpack("16sH14x", answer)[1]
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP


def has_network() -> bool:
    """Tell whether this process sees an interface besides loopback that could lead somewhere."""
    return any(name != "lo" for _, name in socket.if_nameindex())


def can_chroot(root: str) -> bool:
    """Tell whether a child of this process may change its root folder."""
    child = os.fork()
    if child == 0:
        try:
            os.chroot(root)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def start(process: Process, stdin: int, stdout: int, stderr: int) -> int:
    """Fork and execute; return the child's process id. What fails in the child is on its stderr, and its code 127."""
    child = os.fork()
    if child:
        return child
    try:
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, number)
        _become(process)
    except BaseException as error:  # noqa: BLE001 - a forked child must not go on as its parent
        with suppress(OSError):
            os.write(2, f"castoff-freeze: cannot start {process.argv[0]}: {error}\n".encode(errors="replace"))
    os._exit(_EXEC_FAILED)


def _become(process: Process) -> NoReturn:
    kernel = _Kernel()
    os.setsid()
    kernel.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if process.isolation == "namespaces":
        _mount_system(kernel, process.root)
    if process.isolation != "none":
        os.chroot(process.root)
        os.chdir(process.folder)
        _drop(process.uid)
    else:
        os.chdir(process.folder if process.root == "/" else process.root)
    kernel.prctl(_PR_SET_PDEATHSIG, _SIGKILL)  # a change of user cleared it
    with suppress(OSError):
        kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.closerange(3, 1 << 16)
    os.umask(0o022)
    os.execve(process.argv[0], list(process.argv), dict(process.environment))


def _drop(uid: int) -> None:
    """Become an ordinary user; where only one id is mapped, this process is that one already."""
    if os.geteuid() != uid or os.getegid() != uid:
        with suppress(PermissionError):
            os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _mount_system(kernel: _Kernel, root: str) -> None:
    """Give a root what a container engine gives it. The folders are there; see `tree.mount_points`."""
    inside = root.rstrip("/")
    with suppress(OSError):  # a masked /proc forbids a new one; the old one then shows other processes
        kernel.mount("proc", f"{inside}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if not inside:
        return
    if not os.listdir(f"{inside}/tmp"):  # a service that is installed below /tmp must stay visible
        kernel.mount("tmpfs", f"{inside}/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    kernel.mount("tmpfs", f"{inside}/dev", "tmpfs", _MS_NOSUID, "mode=755")
    os.mkdir(f"{inside}/dev/shm")
    os.chmod(f"{inside}/dev/shm", 0o1777)
    for name in _DEVICES:
        with suppress(OSError):
            os.close(os.open(f"{inside}/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            kernel.mount(f"/dev/{name}", f"{inside}/dev/{name}", "none", _MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{inside}/dev/{name}")


def readable_as(uid: int, paths: Sequence[str]) -> bool:
    """Tell whether a user could read all of these paths; as for an ordinary user's own process, whether it can."""
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                _drop(uid)
            fine = all(_readable(path) for path in paths)
        except BaseException:  # noqa: BLE001 - a forked child must not go on as its parent
            fine = False
        os._exit(0 if fine else 1)
    return os.waitpid(child, 0)[1] == 0


def _readable(path: str) -> bool:
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        return error.errno == errno.ENOENT
    return os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(kind) else 0))
