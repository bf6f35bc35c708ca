"""One layer of a merged tree: an overlay-format directory on the host, or entries held in memory."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from castoff.errors import ContextError, StoreError
from castoff.fs.entry import FileEntry, display
from castoff.fs.xattrs import is_opaque, read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from castoff.fs.ownership import Ownership

_FORMAT = 0o170000
_MEMORY_DEVICE = -1


class Mark(Enum):
    """What a layer says of a path that it has no entry for."""

    WHITEOUT = "whiteout"
    """The path is hidden in the layers below."""
    IMPLIED = "implied"
    """A directory that is there only because something is below it: its metadata come from the layers below."""


class Kind(Enum):
    """What a layer says of a name in one of its directories."""

    DIRECTORY = "directory"
    OTHER = "other"
    WHITEOUT = "whiteout"


class TreeLayer(Protocol):
    """One layer of a merged tree. Immutable while a tree uses it; safe for several threads.

    Paths given to it are plain, and their parents are known to be directories of this layer or missing from it.
    """

    def find(self, path: bytes, xattrs: bool) -> FileEntry | Mark | None:
        """Return what this layer says of a path; None where it says nothing. Idempotent."""

    def scan(self, path: bytes) -> Mapping[bytes, Kind]:
        """Return the names in a directory of this layer, in no order; nothing where it has no such directory."""

    def is_opaque(self, path: bytes) -> bool:
        """Tell whether a directory of this layer hides what the layers below have in it."""


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory + b"/" + name if directory else name


class DirectoryLayer:
    """A host directory in overlay format.

    Whiteouts are character devices 0/0; a directory that hides what is below it has overlay's opaque attribute.

    Args:
        path: absolute host path of the directory; it may itself be reached through links, nothing below it may.
        ownership: who owns what in it.
        userxattr: whether overlay's attributes are ``user.overlay.*`` instead of ``trusted.overlay.*``.
    """

    __slots__ = ("_ownership", "_prefix", "_userxattr", "path")

    def __init__(self, path: str, ownership: Ownership, userxattr: bool) -> None:
        self.path = path
        self._prefix = os.fsencode(path)
        self._ownership = ownership
        self._userxattr = userxattr

    def find(self, path: bytes, xattrs: bool) -> FileEntry | Mark | None:
        """Return the entry at a path, WHITEOUT, or None.

        Raises:
            StoreError: the host file can't be read.
        """
        host = self._host(path)
        try:
            status = os.lstat(host)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                return Mark.WHITEOUT
            return entry_of(path, host, status, self._ownership, xattrs)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(host, error) from error

    def scan(self, path: bytes) -> Mapping[bytes, Kind]:
        """Return the names in a directory and what they are.

        Raises:
            StoreError: the host directory can't be read.
        """
        host = self._host(path)
        kinds: dict[bytes, Kind] = {}
        try:
            with os.scandir(host) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        kinds[entry.name] = Kind.DIRECTORY
                    elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        kinds[entry.name] = Kind.OTHER
                    else:
                        status = entry.stat(follow_symlinks=False)
                        whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                        kinds[entry.name] = Kind.WHITEOUT if whiteout else Kind.OTHER
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _unreadable(host, error) from error
        return kinds

    def is_opaque(self, path: bytes) -> bool:
        """Tell whether a directory has the opaque attribute; the root never hides anything, as in the kernel.

        Raises:
            StoreError: the host directory can't be read.
        """
        if not path:
            return False
        host = self._host(path)
        try:
            return is_opaque(host, self._userxattr)
        except OSError as error:
            raise _unreadable(host, error) from error

    def _host(self, path: bytes) -> bytes:
        return self._prefix + b"/" + path if path else self._prefix


def entry_of(path: bytes, host: bytes, status: os.stat_result, ownership: Ownership, xattrs: bool) -> FileEntry:
    """Return the entry of a host file.

    Args:
        path: where it is in its tree.
        host: its host path.
        status: its ``lstat``.
        ownership: who owns it.
        xattrs: whether extended attributes are read.

    Raises:
        OSError: it can't be read.
    """
    mode, uid, gid, rdev = ownership.of(path, status)
    kind = mode & _FORMAT
    is_file = kind == stat.S_IFREG
    return FileEntry(
        path,
        mode,
        uid,
        gid,
        status.st_size if is_file else 0,
        status.st_mtime_ns,
        os.readlink(host) if kind == stat.S_IFLNK else b"",
        rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        read_xattrs(host) if xattrs and kind != stat.S_IFLNK else (),
        None,
        host if is_file else None,
        None,
        (status.st_dev, status.st_ino) if status.st_nlink > 1 and kind != stat.S_IFDIR else None,
    )


class EntryLayer:
    """A layer held in memory.

    Directories that entries imply are there without being listed; their metadata then come from the layers below.
    Hard links are given the content of what they link to and share its `inode`.

    Args:
        entries: in stream order: of two for the same path, the later one counts.
        deletions: paths that are hidden in the layers below.
        opaques: directories that hide what the layers below have in them.

    Raises:
        ContextError: a hard link has no target among the entries, or a path goes through a file.
    """

    __slots__ = ("_children", "_deletions", "_entries", "_opaques")

    def __init__(
        self, entries: Iterable[FileEntry], deletions: Iterable[bytes] = (), opaques: Iterable[bytes] = ()
    ) -> None:
        self._entries: dict[bytes, FileEntry] = {}
        self._children: dict[bytes, dict[bytes, Kind]] = {b"": {}}
        self._deletions = frozenset(deletions)
        self._opaques = frozenset(opaques)
        for entry in entries:
            self._entries[entry.path] = entry if entry.hardlink is None else self._linked(entry)
        for path in self._deletions:
            self._register(path, Kind.WHITEOUT)
        for path in self._opaques:
            self._register(path, Kind.DIRECTORY)
        for entry in self._entries.values():
            self._register(entry.path, Kind.DIRECTORY if entry.is_dir else Kind.OTHER)
        for path, entry in self._entries.items():
            if not entry.is_dir and path in self._children:
                raise ContextError(f"{display(path)} is not a directory and has entries below it")

    def find(self, path: bytes, xattrs: bool) -> FileEntry | Mark | None:  # noqa: ARG002 - the protocol's signature
        """Return the entry at a path, WHITEOUT, IMPLIED or None."""
        entry = self._entries.get(path)
        if entry is not None:
            return entry
        if path in self._children:
            return Mark.IMPLIED
        return Mark.WHITEOUT if path in self._deletions else None

    def scan(self, path: bytes) -> Mapping[bytes, Kind]:
        """Return the names in a directory and what they are."""
        return self._children.get(path, {})

    def is_opaque(self, path: bytes) -> bool:
        """Tell whether a directory was given as opaque, or replaces what was deleted."""
        return path in self._opaques or path in self._deletions

    def _register(self, path: bytes, kind: Kind) -> None:
        if kind is Kind.DIRECTORY:
            self._children.setdefault(path, {})
        while path:
            parent, _, name = path.rpartition(b"/")
            siblings = self._children.setdefault(parent, {})
            if siblings.get(name) is Kind.DIRECTORY:
                return
            siblings[name] = kind
            kind = Kind.DIRECTORY
            path = parent

    def _linked(self, entry: FileEntry) -> FileEntry:
        target = self._entries.get(entry.hardlink or b"")
        if target is None or target.is_dir:
            raise ContextError(f"{display(entry.path)} is a hard link to a file that is not there")
        if target.inode is None:
            target = replace(target, inode=(_MEMORY_DEVICE, len(self._entries)))
            self._entries[target.path] = target
        return replace(target, path=entry.path)


def _unreadable(host: bytes, error: OSError) -> StoreError:
    return StoreError(f"can't read {display(host)} in the store: {error.strerror}")
