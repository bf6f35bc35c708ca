"""A fast walk of a plain host folder, such as a build context."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from castoff.errors import ContextError
from castoff.fs.entry import FileEntry, display
from castoff.fs.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FORMAT = 0o170000
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Verdict(NamedTuple):
    """What an exclusion hook says of a path.

    Attributes:
        excluded: whether the path is left out.
        state: handed to the hook with everything directly below the path.
        may_descend: whether something below an excluded directory may be wanted all the same.
    """

    excluded: bool
    state: Any = None
    may_descend: bool = False


class WalkedFile(NamedTuple):
    """One file that a walk came by.

    Attributes:
        entry: it, with its path counted from the walked folder, its content in `source` and its `stamp`.
        status: its raw ``lstat`` (device, inode, size, times).
        excluded: True for a directory that is left out itself and was only looked into.
        names: for a directory all names in it, sorted by bytes, those left out too; None for other files.
    """

    entry: FileEntry
    status: os.stat_result
    excluded: bool
    names: tuple[bytes, ...] | None


def walk_folder(
    root: str, *, exclude: Callable[[bytes, bool, Any], Verdict] | None = None, xattrs: bool = False
) -> Iterator[WalkedFile]:
    """Yield what a folder holds, itself first: parents before children, siblings in the order of their bytes.

    No symbolic link is followed, except that `root` may be reached through some. Each wanted file costs one ``lstat``;
    what is left out by name costs none. Sockets are left out, FIFOs and devices are told by their type and never
    opened. A file that vanishes meanwhile is left out; a directory that does is empty.

    Args:
        root: host path of the folder.
        exclude: called with (path, is a directory, state of the directory it is in) for everything below the root;
            the state of the root is None.
        xattrs: whether extended attributes are read.

    Raises:
        ContextError: the folder does not exist, or a directory in it can't be read.
    """
    return _Walk(os.fsencode(root), exclude, xattrs).run()


class _Level(NamedTuple):
    """A directory that is being gone through."""

    prefix: bytes
    host: bytes
    state: Any
    files: Iterator[tuple[bytes, bool, os.DirEntry[bytes]]]


class _Walk:
    def __init__(self, root: bytes, exclude: Callable[[bytes, bool, Any], Verdict] | None, xattrs: bool) -> None:
        self._root = root
        self._exclude = exclude
        self._xattrs = xattrs

    def run(self) -> Iterator[WalkedFile]:
        try:
            status = os.stat(self._root)
        except OSError as error:
            raise ContextError(f"can't read the folder {display(self._root)}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise ContextError(f"{display(self._root)} is not a folder")
        names, level = self._open(b"", self._root, None)
        yield WalkedFile(self._entry(b"", self._root, status), status, False, names)
        stack = [level]
        exclude = self._exclude
        while stack:
            prefix, _, parent_state, files = stack[-1]
            for name, is_dir, found in files:
                path = prefix + name
                excluded, state = False, None
                if exclude is not None:
                    excluded, state, may_descend = exclude(path, is_dir, parent_state)
                    if excluded and not (is_dir and may_descend):
                        continue
                try:
                    status = found.stat(follow_symlinks=False)
                    kind = status.st_mode & _FORMAT
                    if kind == stat.S_IFSOCK:
                        continue
                    if kind != stat.S_IFDIR:
                        if not excluded:
                            yield WalkedFile(self._entry(path, found.path, status), status, False, None)
                        continue
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise ContextError(f"can't read {display(path)}: {error.strerror}") from error
                names, level = self._open(path, found.path, state)
                yield WalkedFile(self._entry(path, found.path, status), status, excluded, names)
                stack.append(level)
                break
            else:
                stack.pop()

    def _open(self, path: bytes, host: bytes, state: Any) -> tuple[tuple[bytes, ...], _Level]:
        files: list[tuple[bytes, bool, os.DirEntry[bytes]]] = []
        try:
            with os.scandir(host) as entries:
                files = [(entry.name, entry.is_dir(follow_symlinks=False), entry) for entry in entries]
        except FileNotFoundError:
            pass
        except OSError as error:
            where = display(path) if path else "the build context"
            raise ContextError(
                f"can't read the folder {where}: {error.strerror}",
                hint="exclude it in .dockerignore, or make it readable",
            ) from error
        files.sort(key=_first)
        prefix = path + b"/" if path else b""
        return tuple([name for name, _, _ in files]), _Level(prefix, host, state, iter(files))

    def _entry(self, path: bytes, host: bytes, status: os.stat_result) -> FileEntry:
        mode = status.st_mode
        kind = mode & _FORMAT
        is_file = kind == stat.S_IFREG
        return FileEntry(
            path,
            mode,
            status.st_uid,
            status.st_gid,
            status.st_size if is_file else 0,
            status.st_mtime_ns,
            os.readlink(host) if kind == stat.S_IFLNK else b"",
            status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
            read_xattrs(host) if self._xattrs and kind != stat.S_IFLNK else (),
            None,
            host if is_file else None,
            None,
            (status.st_dev, status.st_ino) if status.st_nlink > 1 and kind != stat.S_IFDIR else None,
            (status.st_dev, status.st_ino, status.st_ctime_ns) if is_file else None,
        )


def _first(item: tuple[bytes, bool, os.DirEntry[bytes]]) -> bytes:
    return item[0]
