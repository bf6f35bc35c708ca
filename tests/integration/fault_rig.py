"""Castoff under a supervisor that counts the calls with which it changes a store, and kills it, or fails them, at one.

The calls are stopped by a system call filter (see `fault_driver`) before the kernel does them, one at a time and in
one order for all threads and processes, so that "before the nth" is a well-defined moment.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fault_driver
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_CONTINUE = 1
_AT_FDCWD = -100
_PATIENCE = 300

# Where the call's own arguments say what it changes: a descriptor, a path, or a folder's descriptor and a path.
_BY_FD = {
    "write": 0, "pwrite64": 0, "writev": 0, "sendfile": 0, "copy_file_range": 2, "fsync": 0, "fdatasync": 0,
    "syncfs": 0, "ftruncate": 0, "fchmod": 0, "fchown": 0, "fsetxattr": 0,
}  # fmt: skip
_BY_PATH = {
    "rename": 1, "mkdir": 0, "rmdir": 0, "unlink": 0, "link": 1, "symlink": 1, "mknod": 0, "truncate": 0, "chmod": 0,
    "chown": 0, "lchown": 0, "setxattr": 0, "lsetxattr": 0, "mount": 1, "umount2": 0,
}  # fmt: skip
_BY_FOLDER = {
    "openat": 0, "renameat": 2, "renameat2": 2, "mkdirat": 0, "unlinkat": 0, "linkat": 2, "symlinkat": 1, "mknodat": 0,
    "fchmodat": 0, "fchownat": 0, "utimensat": 0,
}  # fmt: skip
TAKING_SPACE = frozenset(
    "write pwrite64 writev sendfile copy_file_range openat rename renameat renameat2 mkdir mkdirat link linkat symlink "
    "symlinkat mknod mknodat setxattr lsetxattr fsetxattr".split()
)
"""The calls that a full disk, or a used-up quota, makes fail."""


@dataclass
class Watched:
    """What came of a command under the supervisor.

    Attributes:
        code: its exit code, negative for a signal.
        calls: the names of the calls that changed the store, in their order, the one at which it was killed included.
        out: standard output.
        err: standard error.
    """

    code: int
    calls: list[str] = field(default_factory=list)
    out: str = ""
    err: str = ""


class Supervisor:
    """Runs commands, and interferes with one of their calls.

    Args:
        places: absolute paths; calls that change something below one of them count.
        owner: the ids to run commands as; None for one's own.
    """

    def __init__(self, places: Sequence[str], owner: tuple[int, int] | None = None) -> None:
        self._places = tuple(os.fsencode(place) for place in places)
        self._owner = owner
        self._names = fault_driver.numbers()

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        kill_at: int = 0,
        fail_from: int = 0,
        error: int = 0,
    ) -> Watched:
        """Run a command and return what came of it.

        Args:
            command: its arguments; the program by its path.
            env: its environment.
            cwd: its working directory.
            kill_at: the number (from 1) of the call before which it is killed; 0 for none.
            fail_from: the number of the call from which on those that take space fail; 0 for none.
            error: how they fail.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        who = "-" if self._owner is None else "{}:{}".format(*self._owner)
        driver = [sys.executable, "-I", os.path.abspath(fault_driver.__file__), str(theirs.fileno()), who]
        process = subprocess.Popen(
            [*driver, *command], cwd=cwd, env={**env, "PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
        theirs.close()
        with ours:
            listener = _received(ours, process)
        watched = Watched(0)
        run = _Run(self._places, self._names, process.pid, listener, watched)
        run.kill_at, run.fail_from, run.error = kill_at, fail_from, error
        thread = threading.Thread(target=run.serve, daemon=True)
        thread.start()
        try:
            out, err = process.communicate(timeout=_PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        thread.join(_PATIENCE)
        assert not thread.is_alive(), "something that castoff started does not end"
        watched.code, watched.out, watched.err = process.returncode, out.decode(), err.decode("utf-8", "replace")
        return watched


def _received(channel: socket.socket, process: subprocess.Popen[bytes]) -> int:
    fds = array.array("i")
    text, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(fds.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data)
    if not fds:
        process.communicate()
        pytest.skip(f"system calls can't be supervised here: {text.decode('utf-8', 'replace')}")
    return fds[0]


class _Run:
    """One command under supervision."""

    def __init__(
        self, places: tuple[bytes, ...], names: Mapping[int, str], pid: int, listener: int, watched: Watched
    ) -> None:
        self._places = places
        self._names = names
        self._pid = pid
        self._listener = listener
        self._watched = watched
        self.kill_at = self.fail_from = self.error = 0

    def serve(self) -> None:
        """Answer until all that the command started has ended."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        try:
            while True:
                events = poll.poll()[0][1]
                if events & select.POLLIN:
                    self._serve_one()
                elif events & (select.POLLHUP | select.POLLERR):
                    return
        finally:
            os.close(self._listener)

    def _serve_one(self) -> None:
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notice)
        except OSError:
            return  # who called has died meanwhile
        number, pid, _, call, _, _, *arguments = _NOTICE.unpack(notice)
        name = self._names[call]
        failing = 0
        if self._counts(name, pid, arguments):
            self._watched.calls.append(name)
            count = len(self._watched.calls)
            if count == self.kill_at:
                os.kill(self._pid, signal.SIGKILL)
            if self.fail_from and count >= self.fail_from and name in TAKING_SPACE:
                failing = self.error
        answer = _ANSWER.pack(number, 0, -failing, 0 if failing else _CONTINUE)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _SEND, answer)

    def _counts(self, name: str, pid: int, arguments: Sequence[int]) -> bool:
        try:
            path = self._changed(name, pid, arguments)
        except OSError:
            return False
        return any(path == place or path.startswith(place + b"/") for place in self._places)

    def _changed(self, name: str, pid: int, arguments: Sequence[int]) -> bytes:
        """Return the path of what a call would change, as it is written."""
        if name in _BY_FD:
            return os.readlink(f"/proc/{pid}/fd/{_int(arguments[_BY_FD[name]])}".encode())
        if name in _BY_PATH:
            return self._joined(pid, _AT_FDCWD, arguments[_BY_PATH[name]])
        at = _BY_FOLDER[name]
        return self._joined(pid, _int(arguments[at]), arguments[at + 1])

    def _joined(self, pid: int, folder: int, address: int) -> bytes:
        path = _text(pid, address) if address else b""
        if path.startswith(b"/"):
            return path
        link = "cwd" if folder == _AT_FDCWD else f"fd/{folder}"
        return os.path.join(os.readlink(f"/proc/{pid}/{link}".encode()), path)


def _int(value: int) -> int:
    """Return an argument as the C int that it is."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _text(pid: int, address: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = b""
        while b"\0" not in parts and len(parts) < 4096:
            # Never across the end of a page: the next one may not be there.
            parts += os.pread(fd, 4096 - (address + len(parts)) % 4096, address + len(parts))
        return parts.partition(b"\0")[0]
    finally:
        os.close(fd)
