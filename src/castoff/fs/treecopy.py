"""Copies a tree of files within the host, with all that an image knows of them."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from castoff.fs.rooted import copy_bytes
from castoff.fs.treelayer import join
from castoff.fs.xattrs import read_xattrs

if TYPE_CHECKING:
    from castoff.fs.ownership import Ownership

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ATTRIBUTES = frozenset({errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG})


def copy_tree(source: str, target: str, owners: Ownership, ownership: Ownership) -> None:
    """Copy everything in a directory into another, and the metadata of the directory itself.

    Owners, permission bits, times to the nanosecond, hard links within the tree, holes as far as the kernel keeps them,
    device nodes, and those extended attributes that belong to an image and that the file system can hold. Blocks are
    shared where it can share them. Sockets are left out. No symbolic link is followed.

    Args:
        source: absolute host path; nothing may write to it meanwhile.
        target: absolute host path of an empty directory on any file system.
        owners: who owns what in `source`.
        ownership: takes the owners of what is copied.

    Raises:
        OSError: something can't be read or written.
        SyscallError: the host refuses an owner.
    """
    _Copy(os.fsencode(source), os.fsencode(target), owners, ownership).run()


class _Copy:
    """One copying of a tree."""

    def __init__(self, source: bytes, target: bytes, owners: Ownership, ownership: Ownership) -> None:
        self._source = source
        self._target = target
        self._owners = owners
        self._ownership = ownership
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        top = os.lstat(self._source)
        directories = [(b"", top)]
        for path, _status in directories:
            with os.scandir(join(self._source, path) if path else self._source) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
            for name, status in found:
                below = join(path, name)
                if stat.S_ISDIR(status.st_mode):
                    os.mkdir(join(self._target, below), 0o700)
                    directories.append((below, status))
                elif not stat.S_ISSOCK(status.st_mode):
                    self._copy(below, status)
        # Last, and from below: a directory may be closed to its owner, and each entry changed the times of its own.
        for path, status in reversed(directories):
            self._finish(path, status)
        self._ownership.flush()

    def _copy(self, path: bytes, status: os.stat_result) -> None:
        source, target = join(self._source, path), join(self._target, path)
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                os.link(join(self._target, first), target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            self._copy_file(path, source, target)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        else:
            os.mknod(target, status.st_mode, status.st_rdev)
        self._finish(path, status)

    def _copy_file(self, path: bytes, source: bytes, target: bytes) -> None:
        reader = os.open(source, _READ)
        try:
            status = os.fstat(reader)
            writer = os.open(target, _CREATE, 0o600)
            try:
                copy_bytes(reader, writer, status.st_size)
                self._ownership.set_(path, writer, self._owners.of(path, status))
                _set_attributes(reader, writer)
                os.utime(writer, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _finish(self, path: bytes, status: os.stat_result) -> None:
        source = join(self._source, path) if path else self._source
        target = join(self._target, path) if path else self._target
        self._ownership.set_(path, target, self._owners.of(path, status))
        _set_attributes(source, target)
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def _set_attributes(source: int | bytes, target: int | bytes) -> None:
    for name, value in read_xattrs(source):
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
