"""What a supervised thread means by its arguments: paths as it sees them, and its memory.

Nothing here is trusted: another thread may change a path once it was read. It does not matter, since the supervisor is
in the same root with the same rights, and reaches only what the sandbox reaches anyway. What must not happen is that
the number of a thread that is gone leads to another process; callers ask `Listener.is_waiting` before they act.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import os

from castoff.linux import syscalls
from castoff.linux.filestatus import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, INODE, device_of
from castoff.linux.processmemory import MemoryReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.linux.filestatus import StatusReader

_SELF = (b"/proc/self/", b"/proc/thread-self/", b"/dev/fd/")
_STREAMS = {b"/dev/stdin": b"0", b"/dev/stdout": b"1", b"/dev/stderr": b"2"}
_HERE = AT_FDCWD & 0xFFFFFFFF


class Place:
    """A file that a thread named, for calls that take a directory, a path and flags.

    Attributes:
        directory: an open directory, or AT_FDCWD.
        path: the path from there.
        flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH.
        owned: whether `directory` is to be closed.
    """

    __slots__ = ("directory", "flags", "owned", "path")

    def __init__(self, directory: int, path: bytes, flags: int, *, owned: bool = False) -> None:
        self.directory = directory
        self.path = path
        self.flags = flags
        self.owned = owned

    def close(self) -> None:
        """Close what is the place's own."""
        if self.owned:
            os.close(self.directory)
            self.owned = False

    def open_(self) -> int:
        """Open the file itself as O_PATH and return the descriptor.

        Raises:
            OSError: it can't be opened.
        """
        if not self.path:
            return os.dup(self.directory)
        no_follow = os.O_NOFOLLOW if self.flags & AT_SYMLINK_NOFOLLOW else 0
        directory = None if self.directory == AT_FDCWD else self.directory
        return os.open(self.path, os.O_PATH | os.O_CLOEXEC | no_follow, dir_fd=directory)


class Tracee:
    """Reads what threads mean. For one thread, inside of the sandbox' root.

    Args:
        processes: an open /proc in which threads have the numbers that notifications give.
        reader: reads status.
        foreign_roots: whether threads may have another root, or other mounts, than the sandbox itself.
    """

    def __init__(self, processes: int, reader: StatusReader, *, foreign_roots: bool) -> None:
        self.processes = processes
        self.foreign_roots = foreign_roots
        self._reader = reader
        self._memory = MemoryReader()

    def read(self, thread: int, address: int, size: int) -> bytes:
        """Return bytes of a thread's memory.

        Raises:
            OSError: they can't be read.
        """
        return self._memory.read(thread, address, size)

    def path(self, thread: int, address: int) -> bytes:
        """Return the path that a thread's memory holds.

        Raises:
            OSError: it can't be read.
        """
        return self._memory.read_path(thread, address)

    def open_memory(self, thread: int) -> int:
        """Open the memory of a thread for writing; once its call is known to wait still, it is the right one.

        Raises:
            OSError: it can't be opened.
        """
        return os.open(b"%d/mem" % thread, os.O_RDWR | os.O_CLOEXEC, dir_fd=self.processes)

    def field(self, thread: int, name: bytes) -> bytes:
        """Return a field of a thread's status in /proc.

        Raises:
            OSError: the thread is gone, or has no such field.
        """
        descriptor = os.open(b"%d/status" % thread, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.processes)
        try:
            text = os.read(descriptor, 8192)
        finally:
            os.close(descriptor)
        for line in text.split(b"\n"):
            key, _, value = line.partition(b":")
            if key == name:
                return value.strip()
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))

    def place(self, thread: int, directory: int, path: bytes, flags: int = 0) -> Place:
        """Return where a path of a thread leads, which must be closed.

        Args:
            thread: its number.
            directory: the descriptor that a relative path starts from, in the thread's own numbers.
            path: as the thread gave it.
            flags: as the call gave them; only AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH count.

        Raises:
            OSError: it leads nowhere.
        """
        no_follow = flags & AT_SYMLINK_NOFOLLOW
        if not path:
            if not flags & AT_EMPTY_PATH:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return Place(self.processes, self._base(thread, directory), 0)
        own = _own(path)
        if own is not None:
            return Place(self.processes, b"%d/%s" % (thread, own), no_follow)
        if self.foreign_roots and not self._has_our_root(thread):
            return self._in_its_root(thread, directory, path, no_follow)
        if path[0] == 47:  # a slash
            return Place(AT_FDCWD, path, no_follow)
        return Place(self.processes, self._base(thread, directory) + b"/" + path, no_follow)

    @staticmethod
    def _base(thread: int, directory: int) -> bytes:
        directory &= 0xFFFFFFFF
        return b"%d/cwd" % thread if directory == _HERE else b"%d/fd/%d" % (thread, directory)

    def _has_our_root(self, thread: int) -> bool:
        ours = self._reader.statx(AT_FDCWD, b"/", 0)
        its = self._reader.statx(self.processes, b"%d/root" % thread, 0)
        if ours is None or its is None:
            return False
        return (ours[INODE], device_of(ours)) == (its[INODE], device_of(its))

    def _in_its_root(self, thread: int, directory: int, path: bytes, no_follow: int) -> Place:
        """Resolve a path as a thread does that has another root, never leaving that."""
        if path[0] != 47:
            path = self._from_root(thread, directory) + b"/" + path
        root = os.open(b"%d/root" % thread, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.processes)
        try:
            flags = os.O_PATH | (os.O_NOFOLLOW if no_follow else 0)
            descriptor = syscalls.openat2(root, path, flags, 0, syscalls.RESOLVE_IN_ROOT)
        finally:
            os.close(root)
        return Place(descriptor, b"", AT_EMPTY_PATH, owned=True)

    def _from_root(self, thread: int, directory: int) -> bytes:
        """Return the path of a thread's directory from its own root."""
        there = os.readlink(self._base(thread, directory), dir_fd=self.processes)
        root = os.readlink(b"%d/root" % thread, dir_fd=self.processes).rstrip(b"/")
        if there != root and not there.startswith(root + b"/"):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return there[len(root) :]


def _own(path: bytes) -> bytes | None:
    """Return the path in a thread's folder of /proc for one of those that mean the thread itself."""
    if path[:1] != b"/" or path[1:2] not in (b"p", b"d"):
        return None
    for prefix in _SELF:
        if path.startswith(prefix):
            rest = path[len(prefix) :]
            return b"fd/" + rest if prefix == b"/dev/fd/" else rest
    stream = _STREAMS.get(path)
    return None if stream is None else b"fd/" + stream
