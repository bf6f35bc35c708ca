"""Owners of a snapshot's files from the table beside it: what serves where only one user id is mapped."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from castoff.errors import StoreError, SyscallError
from castoff.fs.entry import display
from castoff.fs.ownership import DirectOwnership, Owner
from castoff.fs.ownertable import ROOT, read_table, table_path, write_table
from castoff.fs.xattrs import is_opaque

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.fs.ownership import Ownership
    from castoff.fs.ownertable import Owned

_FORMAT = 0o170000
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class TableOwnership:
    """A table is the truth for owners and devices, and the file system for everything else.

    The table is read when it is first asked for. Not thread-safe while it is written to.

    Args:
        table: host path of the table; it need not exist.
    """

    __slots__ = ("_changed", "_known", "_table")

    def __init__(self, table: str) -> None:
        self._table = table
        self._known: dict[bytes, Owned] | None = None
        self._changed = False

    @property
    def keeps_devices(self) -> bool:
        """Whether an empty file stands for a device."""
        return True

    def of(self, path: bytes, status: os.stat_result) -> Owner:
        """Return what the table says of a path; what it does not know is root's.

        Raises:
            StoreError: the table can't be read.
        """
        uid, gid, kind, rdev = self._owned().get(path, ROOT)
        mode = status.st_mode
        if kind and stat.S_ISREG(mode):
            return Owner(mode & 0o7777 | kind, uid, gid, rdev)
        return Owner(mode, uid, gid, status.st_rdev)

    def set_(self, path: bytes, host: int | bytes, owner: Owner) -> None:
        """Note an owner, and set the permission bits.

        Raises:
            SyscallError: the host refuses the bits.
            StoreError: the table can't be read.
        """
        try:
            mode = (os.fstat(host) if isinstance(host, int) else os.lstat(host)).st_mode
            if mode & 0o7777 != owner.mode & 0o7777 and not stat.S_ISLNK(mode):
                os.chmod(host, owner.mode & 0o7777)
        except OSError as error:
            raise SyscallError(
                f"can't give {display(path)} the mode {owner.mode & 0o7777:o}: {error.strerror}",
                errno=error.errno or 0,
                hint=None,
            ) from error
        kind = owner.mode & _FORMAT
        device = (kind, owner.rdev) if kind in _DEVICES and stat.S_ISREG(mode) else (0, 0)
        self._note(path, (owner.uid, owner.gid, *device))

    def _note(self, path: bytes, owned: Owned) -> None:
        known = self._owned()
        if owned == ROOT:
            self._changed |= known.pop(path, None) is not None
        elif known.get(path) != owned:
            known[path] = owned
            self._changed = True

    def forget(self, path: bytes) -> None:
        """Drop a path and everything below it."""
        known = self._owned()
        inside = path + b"/"
        for each in [each for each in known if each == path or each.startswith(inside)]:
            del known[each]
            self._changed = True

    def flush(self) -> None:
        """Write the table where it differs from the file.

        Raises:
            StoreError: it can't be written.
        """
        if not self._changed or self._known is None:
            return
        try:
            write_table(self._table, self._known)
        except OSError as error:
            raise StoreError(f"can't write who owns what to {self._table}: {error.strerror}") from error
        self._changed = False

    def _owned(self) -> dict[bytes, Owned]:
        if self._known is None:
            self._known = owners_in(self._table)
        return self._known


def beside(directory: str) -> TableOwnership:
    """Return the ownership of a snapshot's directory by the table beside it."""
    return TableOwnership(table_path(directory))


def direct(directory: str) -> Ownership:  # noqa: ARG001 - the signature of `beside`
    """Return the ownership of a directory whose file system holds true owners."""
    return DirectOwnership()


def ownership_source(emulated: bool) -> Callable[[str], Ownership]:
    """Return what gives the ownership of a snapshot's directory: with one mapped id the tables, else the directory."""
    return beside if emulated else direct


def visible_owners(directories: Sequence[str], userxattr: bool) -> dict[bytes, Owned]:
    """Return the owners that show in the union of some directories by their tables, for paths that are not root's.

    Args:
        directories: host paths in overlay format, topmost first.
        userxattr: whether overlay's attributes are ``user.overlay.*``.

    Raises:
        StoreError: a table or a directory can't be read.
    """
    seen: dict[bytes, Owned] = {}
    above: list[_Cover] = []
    for directory in directories:
        for path, owned in owners_in(table_path(directory)).items():
            if path not in seen and not any(cover.hides(path) for cover in above):
                seen[path] = owned
        above.append(_Cover(directory, userxattr))
    return seen


class _Cover:
    """A directory as what lies below sees it: which paths it hides."""

    def __init__(self, directory: str, userxattr: bool) -> None:
        self._prefix = os.fsencode(directory) + b"/"
        self._userxattr = userxattr
        # None where the layer has no such directory; else whether it hides all that lies below it.
        self._folders: dict[bytes, bool | None] = {b"": False}

    def hides(self, path: bytes) -> bool:
        """Tell whether this layer has something of its own at a path, or nothing shows through there."""
        if not path:
            return True
        closed = self._folder(path.rpartition(b"/")[0])
        return closed or (closed is not None and self._mode(path) is not None)

    def _folder(self, path: bytes) -> bool | None:
        missing: list[bytes] = []
        while path not in self._folders:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        closed = self._folders[path]
        for below in reversed(missing):
            if closed is False:
                mode = self._mode(below)
                closed = None if mode is None else not stat.S_ISDIR(mode) or self._is_opaque(below)
            self._folders[below] = closed
        return closed

    def _mode(self, path: bytes) -> int | None:
        try:
            return os.lstat(self._prefix + path).st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"can't read {display(path)} in the store: {error.strerror}") from error

    def _is_opaque(self, path: bytes) -> bool:
        try:
            return is_opaque(self._prefix + path, self._userxattr)
        except OSError as error:
            raise StoreError(f"can't read {display(path)} in the store: {error.strerror}") from error


def owners_in(path: str) -> dict[bytes, Owned]:
    """Return the table in a file; an empty one where there is no file.

    Raises:
        StoreError: it can't be read.
    """
    try:
        return read_table(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(
            f"can't read who owns what from {path}: {reason}", hint="castoff doctor --store --repair, then build again"
        ) from error
