"""Writing below a host folder without ever leaving it, whatever symbolic links are there."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_SIZE = 1 << 30
_LONG_PATH = 3000
_READ_SIZE = 1 << 20
_NOT_COPIED = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM})


class RootedDirectory:
    """A host folder below which files are made and removed.

    Directories are opened part by part and never through a symbolic link; the last ones are kept open. A path's
    parents must exist. All methods raise OSError as the kernel does; ENOTDIR or ELOOP for a link among the parents.
    Not thread-safe.

    Args:
        path: absolute host path of the folder.
        kept: how many directories are kept open.
    """

    def __init__(self, path: str, *, kept: int = 32) -> None:
        self._path = os.fsencode(path)
        self._kept = kept
        self._top = os.open(path, _DIRECTORY)
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def __enter__(self) -> RootedDirectory:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self.forget(b"")
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def forget(self, path: bytes) -> None:
        """Close what is kept open of a directory and of those below it."""
        inside = path + b"/" if path else b""
        for known in [each for each in self._open if each == path or each.startswith(inside)]:
            os.close(self._open.pop(known))

    def host(self, path: bytes) -> bytes:
        """Return the host path of a path; its last part may be a link."""
        return self._path + b"/" + path if path else self._path

    def open_directory(self, path: bytes) -> int:
        """Return a descriptor of a directory, which stays the property of this object and is soon closed by it."""
        missing: list[bytes] = []
        while path and path not in self._open:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        if path:
            self._open.move_to_end(path)
            descriptor = self._open[path]
        else:
            descriptor = self._top
        for below in reversed(missing):
            descriptor = os.open(below.rpartition(b"/")[2], _DIRECTORY, dir_fd=descriptor)
            self._open[below] = descriptor
            if len(self._open) > self._kept:
                os.close(self._open.popitem(last=False)[1])
        return descriptor

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Return the status of a path, not followed; None where there is nothing."""
        parent, _, name = path.rpartition(b"/")
        if not name:
            return os.fstat(self._top)
        try:
            return os.stat(name, dir_fd=self.open_directory(parent), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a symbolic link."""
        parent, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.open_directory(parent))

    def create(self, path: bytes, mode: int) -> int:
        """Make a regular file and return a descriptor to write it; FileExistsError where something is there."""
        parent, _, name = path.rpartition(b"/")
        return os.open(name, _CREATE, mode, dir_fd=self.open_directory(parent))

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        """Make a directory."""
        parent, _, name = path.rpartition(b"/")
        os.mkdir(name, mode, dir_fd=self.open_directory(parent))

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        parent, _, name = path.rpartition(b"/")
        os.symlink(target, name, dir_fd=self.open_directory(parent))

    def mknod(self, path: bytes, mode: int, device: int = 0) -> None:
        """Make a device node, a FIFO or a socket; `mode` has its type."""
        parent, _, name = path.rpartition(b"/")
        os.mknod(name, mode, device, dir_fd=self.open_directory(parent))

    def link(self, path: bytes, existing: bytes) -> None:
        """Make a hard link to an existing path, which is not followed."""
        parent, _, name = path.rpartition(b"/")
        from_parent, _, from_name = existing.rpartition(b"/")
        # Opening the second directory may close the first: a duplicate stays.
        there = os.dup(self.open_directory(from_parent))
        try:
            here = self.open_directory(parent)
            os.link(from_name, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)

    def set_times(self, path: bytes, mtime_ns: int) -> None:
        """Set the access and modification times of a path, not followed."""
        parent, _, name = path.rpartition(b"/")
        if name:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self.open_directory(parent), follow_symlinks=False)
        else:
            os.utime(self._top, ns=(mtime_ns, mtime_ns))

    def remove(self, path: bytes) -> None:
        """Remove a path, a directory with all in it; nothing happens where there is nothing."""
        parent, _, name = path.rpartition(b"/")
        status = self.lstat(path)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self.open_directory(parent))
            return
        self.forget(path)
        self.open_directory(parent)  # No link among the parents: the host path can be trusted.
        remove_tree(self.host(path))


def remove_tree(host: bytes) -> None:
    """Remove a host directory with all in it, following no symbolic link.

    However deep it is: there is no recursion, and what lies too deep for a path of the kernel's is first moved up.

    Raises:
        OSError: something can't be removed.
    """
    directories = [host]
    for directory in directories:
        with _scan(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif len(entry.path) < _LONG_PATH:
                    directories.append(entry.path)
                else:
                    moved = host + b"/moved-%d-%s" % (len(directories), os.urandom(8).hex().encode())
                    os.rename(entry.path, moved)
                    directories.append(moved)
    for directory in reversed(directories):
        os.rmdir(directory)


def _scan(directory: bytes) -> AbstractContextManager[Iterator[os.DirEntry[bytes]]]:
    try:
        return os.scandir(directory)
    except PermissionError:
        os.chmod(directory, 0o700)
        return os.scandir(directory)


def copy_bytes(source: int, target: int, size: int) -> int:
    """Copy bytes from one descriptor to another inside the kernel and return their number.

    Blocks are shared where the file system can; else the kernel copies; else this process does.

    Args:
        source: a regular file, read from where it stands.
        target: a regular file, written where it stands.
        size: how many bytes at most; fewer are copied only if `source` ends.

    Raises:
        OSError: reading or writing failed.
    """
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, min(size - done, _COPY_SIZE))
        except OSError as error:
            if error.errno not in _NOT_COPIED:
                raise
            return done + _copy_through(source, target, size - done)
        if not count:
            # Some file systems answer 0 where they can't copy; reading tells whether it is the end.
            return done + _copy_through(source, target, size - done)
        done += count
    return done


def _copy_through(source: int, target: int, size: int) -> int:
    done = 0
    while done < size:
        block = os.read(source, min(size - done, _READ_SIZE))
        if not block:
            break
        write_all(target, block)
        done += len(block)
    return done


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of some bytes.

    Raises:
        OSError: writing failed.
    """
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
