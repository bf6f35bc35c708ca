"""Learn from the kernel which files are opened while something runs: by fanotify where permitted, else by inotify.

Both see what Python's own events do not: what C libraries open. Neither changes the traced process.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
import termios
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

_AT_FDCWD = -100
_FAN_CLOEXEC, _FAN_NONBLOCK, _FAN_UNLIMITED_QUEUE, _FAN_UNLIMITED_MARKS = 0x1, 0x2, 0x10, 0x20
_FAN_MARK_ADD, _FAN_MARK_FILESYSTEM = 0x1, 0x100
_FAN_OPEN = 0x20
_O_LARGEFILE = 0o100000
_IN_OPEN, _IN_ISDIR, _IN_Q_OVERFLOW = 0x20, 0x40000000, 0x4000
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x01000000, 0x02000000
_POLL_MILLISECONDS = 50
_MAX_WATCHES = 60_000
_BUFFER = 1 << 16
_NOWHERE = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/boot", "/lost+found")


class Watcher(Protocol):
    """Sees which files are opened between `start` and `stop`."""

    name: str

    def start(self, process: int) -> None:
        """Begin; what `process` does itself is of no interest, what its children do is. Not idempotent."""

    def stop(self) -> set[str]:
        """End, and return the paths of the regular files and links that were opened."""


def watcher(folders: Sequence[str], *, prefer: str = "auto") -> Watcher:
    """Return the best watcher that this process may have.

    Args:
        folders: where files of interest are, the most interesting first.
        prefer: ``fanotify``, ``inotify``, ``none``, or ``auto``.
    """
    if prefer in ("auto", "fanotify"):
        try:
            return _Fanotify(["/", *folders])
        except OSError:
            pass
    if prefer in ("auto", "inotify"):
        try:
            return _Inotify(folders)
        except OSError:
            pass
    return _Blind()


class _Blind:
    name = "none"

    def start(self, process: int) -> None:
        pass

    def stop(self) -> set[str]:
        return set()


class _Reader:
    """Reads events on a thread until it is told to stop and there are none left."""

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._take = take
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while not self._ending.is_set():
            if poll.poll(_POLL_MILLISECONDS):
                self._take(self._some())
        # What had come by now is read; on a busy machine there would always be more.
        waiting = struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0"))[0]
        while waiting > 0 and (data := self._some()):
            self._take(data)
            waiting -= len(data)

    def _some(self) -> bytes:
        try:
            return os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return b""

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


class _Fanotify:
    """Marks whole file systems; needs CAP_SYS_ADMIN in the initial user namespace."""

    name = "fanotify"

    def __init__(self, paths: Sequence[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_UNLIMITED_QUEUE | _FAN_UNLIMITED_MARKS
        self._descriptor = self._libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC | _O_LARGEFILE)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "fanotify_init")
        devices: set[int] = set()
        for path in paths:
            if os.path.exists(path) and (device := os.stat(path).st_dev) not in devices:
                devices.add(device)
                self._mark(path)
        self._paths: set[str] = set()
        self._family: dict[int, bool] = {}
        self._folders = tuple(os.path.join(os.path.realpath(path), "") for path in paths if path != "/")

    def _mark(self, path: str) -> None:
        flags = _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM
        if self._libc.fanotify_mark(self._descriptor, flags, ctypes.c_uint64(_FAN_OPEN), _AT_FDCWD, os.fsencode(path)):
            number = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(number, "fanotify_mark")

    def start(self, process: int) -> None:
        self._family[process] = False
        self._ancestor = process
        self._reader = _Reader(self._descriptor, self._take)

    def _take(self, data: bytes) -> None:
        place = 0
        while place + 24 <= len(data):
            length, _, _, _, _, descriptor, process = struct.unpack_from("<IBBHQii", data, place)
            place += max(length, 24)
            if descriptor < 0:
                continue
            try:
                if self._family.get(process, True):
                    path = os.readlink(f"/proc/self/fd/{descriptor}")
                    if self._is_ours(process, path):
                        self._paths.add(path)
            except OSError:
                pass
            finally:
                os.close(descriptor)

    def _is_ours(self, process: int, path: str) -> bool:
        """Tell whether a process descends from the watched one; others on this machine open files too.

        Of one that has ended meanwhile nobody can tell; what it opened counts where files of interest are.
        """
        if process in self._family:
            return self._family[process]
        chain = [process]
        while (parent := _parent(chain[-1])) > 1 and parent != self._ancestor and parent not in self._family:
            chain.append(parent)
        if not parent:
            return process > self._ancestor and path.startswith(self._folders)
        verdict = parent == self._ancestor or self._family.get(parent, False)
        self._family.update(dict.fromkeys(chain, verdict))
        return verdict

    def stop(self) -> set[str]:
        self._reader.end()
        os.close(self._descriptor)
        return self._paths


def _parent(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


class _Inotify:
    """Watches folders; needs no privilege, and can't tell whose doing an event is."""

    name = "inotify"

    def __init__(self, folders: Sequence[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._folders: dict[int, str] = {}
        self._paths: set[str] = set()
        for top in dict.fromkeys(os.path.realpath(folder) for folder in folders):
            if not self._watch(top):
                break
        if not self._folders:
            os.close(self._descriptor)
            raise OSError(errno.ENOSPC, "no folder can be watched")

    def _watch(self, top: str) -> bool:
        """Watch a folder and all below it; return whether there may be more watches."""
        for folder, names, _ in os.walk(top):
            names[:] = [name for name in sorted(names) if os.path.join(folder, name) not in _NOWHERE]
            mask = _IN_OPEN | _IN_ONLYDIR | _IN_DONT_FOLLOW
            number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
            if number >= 0:
                self._folders[number] = folder
            elif ctypes.get_errno() == errno.ENOSPC:
                return False
            if len(self._folders) >= _MAX_WATCHES:
                return False
        return True

    def start(self, process: int) -> None:  # noqa: ARG002 - inotify can't tell processes apart
        self._reader = _Reader(self._descriptor, self._take)

    def _take(self, data: bytes) -> None:
        place = 0
        while place + 16 <= len(data):
            number, mask, _, length = struct.unpack_from("<iIII", data, place)
            name = data[place + 16 : place + 16 + length].rstrip(b"\0")
            place += 16 + length
            folder = self._folders.get(number)
            if folder is not None and name and not mask & (_IN_ISDIR | _IN_Q_OVERFLOW):
                self._paths.add(os.path.join(folder, os.fsdecode(name)))

    def stop(self) -> set[str]:
        self._reader.end()
        os.close(self._descriptor)
        return self._paths
