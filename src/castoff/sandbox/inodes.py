"""Who owns which file of a running sandbox: kept by inode while it runs, by path before and afterwards.

A file keeps its owner through renames and hard links, which needs no trap then. Inode numbers are used anew soon after
a file is gone, so an entry also has the time of birth, and files that have just got an owner are held open for a
while: no two files with one number can have the same time of birth then.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import deque

from castoff.fs.ownertable import ROOT, read_table, write_table
from castoff.linux.filestatus import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    BORN,
    GID,
    INODE,
    MODE,
    UID,
    device_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.ownertable import Owned
    from castoff.linux.filestatus import Status, StatusReader

_PINNED = 256
"""How many files are held open: changing the owners of more takes longer than the clock of births ticks."""
_LONGEST = 3800
"""Deeper directories can't be opened by one path."""
_ORIGIN = "user.overlay.origin"
_OPAQUE = "user.overlay.opaque"
Key = tuple[int, int]


class Tree:
    """A part of a sandbox' file system whose owners are kept in a table.

    Attributes:
        target: absolute path in the sandbox.
        owners: who owns what in it at the start, by path below the target; what is missing is root's.
        table: name of the table in its folder; "" if it is not to be written.
        folder: an open directory with the table; -1 without one.
        source: the open host directory whose entries the table is to have; -1 without one.
    """

    def __init__(self, target: bytes, owners: dict[bytes, Owned]) -> None:
        self.target = target
        self.owners = owners
        self.table = ""
        self.folder = -1
        self.source = -1

    def keep(self, source: bytes, table: bytes) -> None:
        """Have the table written at the end: that of a host directory, both by absolute paths of the host.

        Raises:
            OSError: one of them can't be opened.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self.source = os.open(source, flags)
        self.folder = os.open(os.path.dirname(table), flags)
        self.table = os.fsdecode(os.path.basename(table))

    def path(self, below: bytes) -> bytes:
        """Return the path in the sandbox of something in this tree."""
        return (self.target.rstrip(b"/") + b"/" + below) if below else self.target


class InodeOwners:
    """Owners by inode. For one thread, inside of the sandbox' root.

    Attributes:
        any_group_folders: whether any directory has been given a group, which files in it may inherit.
    """

    def __init__(self, reader: StatusReader) -> None:
        self.any_group_folders = False
        self._reader = reader
        # (owner, time of birth); the latter is None for what was there at the start: it keeps its number, even when
        # overlayfs copies it, and then has another time of birth.
        self._known: dict[Key, tuple[Owned, bytes | None]] = {}
        self._pinned: deque[int] = deque()

    def __bool__(self) -> bool:
        """Tell whether anything is known."""
        return bool(self._known)

    def load(self, tree: Tree) -> None:
        """Take a tree's owners."""
        for below, owned in tree.owners.items():
            status = self._reader.statx(AT_FDCWD, tree.path(below), AT_SYMLINK_NOFOLLOW if below else 0)
            if status is not None:
                self._set(status, owned, None)

    def of(self, status: Status) -> Owned:
        """Return the owner of a file by its status."""
        known = self._known.get((device_of(status), status[INODE]))
        if known is not None and (known[1] is None or known[1] == status[BORN]):
            return known[0]
        return ROOT

    def differs(self, status: Status) -> bool:
        """Tell whether a file is to look other than the kernel says."""
        # Ids that are not mapped, such as those of the host's devices, are root's in a sandbox with all ids.
        known = self._known.get((device_of(status), status[INODE]))
        if known is not None:
            return known[0] != ROOT and (known[1] is None or known[1] == status[BORN])
        return status[UID] != 0 or status[GID] != 0

    def is_known(self, status: Status) -> bool:
        """Tell whether a file was given an owner, be it root."""
        known = self._known.get((device_of(status), status[INODE]))
        return known is not None and (known[1] is None or known[1] == status[BORN])

    def mode(self, status: Status) -> int:
        """Return the type and the permission bits that a file is to have."""
        kind = self.of(status)[2]
        return status[MODE] & 0o7777 | kind if kind else status[MODE]

    def change(self, descriptor: int, before: Status, owned: Owned) -> None:
        """Give an open file an owner, with all that the kernel does when an owner changes.

        Raises:
            OSError: the kernel refuses.
        """
        self._reader.touch_owner(descriptor)
        after = self._reader.statx(descriptor, b"", AT_EMPTY_PATH)
        if after is None:
            return
        if (after[INODE], device_of(after)) != (before[INODE], device_of(before)):
            self._known.pop((device_of(before), before[INODE]), None)
        self.label(descriptor, after, owned)

    def label(self, descriptor: int, status: Status, owned: Owned) -> None:
        """Give an open file an owner that it was born with."""
        self._set(status, owned, status[BORN])
        self._pinned.append(os.dup(descriptor))
        if len(self._pinned) > _PINNED:
            os.close(self._pinned.popleft())

    def _set(self, status: Status, owned: Owned, born: bytes | None) -> None:
        self._known[device_of(status), status[INODE]] = (owned, born)
        if owned[1] and stat.S_ISDIR(status[MODE]):
            self.any_group_folders = True

    def save(self, tree: Tree) -> None:
        """Write a tree's table, once nothing in it changes any more.

        Raises:
            OSError: it can't be written.
            ValueError: the table that is there is none.
        """
        if not tree.table or (not self._known and not tree.owners):
            return
        table: dict[bytes, Owned] = {}
        unknown: list[bytes] = []
        for below in _walk(tree.source):
            owned = self._owner_at(tree, below)
            if owned is None:
                unknown.append(below)
            elif owned != ROOT:
                table[below] = owned
        # Another sandbox may have written to the same cache meanwhile.
        fcntl.flock(tree.folder, fcntl.LOCK_EX)
        try:
            others = read_table(tree.table, tree.folder)
            table.update((below, others[below]) for below in unknown if below in others and below not in tree.owners)
            write_table(tree.table, table, tree.folder)
        finally:
            fcntl.flock(tree.folder, fcntl.LOCK_UN)

    def _owner_at(self, tree: Tree, below: bytes) -> Owned | None:
        """Return the owner of something in a tree; None where it never got one."""
        status = self._reader.statx(AT_FDCWD, tree.path(below), AT_SYMLINK_NOFOLLOW if below else 0)
        if status is None:
            return None
        if self.is_known(status):
            return self.of(status)
        inherited = tree.owners.get(below, ROOT)
        if inherited == ROOT or inherited[2]:
            return None
        # A file of a layer below that overlayfs has copied, and numbered anew while doing so.
        return inherited if _is_copy(tree.source, below, stat.S_ISDIR(status[MODE])) else ROOT


def _walk(top: int) -> Iterator[bytes]:
    """Yield the paths of everything in a host directory, itself included; whiteouts too."""
    yield b""
    pending = [b""]
    while pending:
        path = pending.pop()
        directory = os.open(path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        try:
            with os.scandir(directory) as entries:
                found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(directory)
        for name, is_folder in found:
            below = path + b"/" + name if path else name
            yield below
            if is_folder and len(below) < _LONGEST:
                pending.append(below)


def _is_copy(top: int, path: bytes, is_folder: bool) -> bool:
    """Tell by overlay's own marks whether something in an upper directory goes on what is below it."""
    os.fchdir(top)
    try:
        attributes = os.listxattr(path or b".", follow_symlinks=False)
    except OSError:
        return is_folder
    return _OPAQUE not in attributes if is_folder else _ORIGIN in attributes
