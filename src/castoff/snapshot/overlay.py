"""Snapshots as directories in overlay format, one below the other.

On disk a committed snapshot is ``<root>/<name>/`` with the directory ``fs`` and the file ``parent`` (the parent's name,
or nothing). It appears by one rename of a folder that was prepared elsewhere on the same file system, so that a
snapshot is there whole or not at all; folders without a readable ``parent`` are ignored.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Protocol

from castoff.errors import StoreError
from castoff.fs.ownership import DirectOwnership
from castoff.fs.rooted import remove_tree
from castoff.fs.union import DirectoryLayer, UnionTree
from castoff.snapshot.snapshotter import ActiveSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.ownership import Ownership
    from castoff.snapshot.snapshotter import OwnershipSource

MAX_DEPTH = 500
"""How many lower directories the kernel stacks."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_NAME_BYTES = 8  # 13 characters of base32


class FolderSource(Protocol):
    """Gives temporary folders on the snapshots' file system; a store's session is one."""

    def new_dir(self) -> str:
        """Return the host path of a new, empty folder that goes with the process unless it is moved away."""


def direct_ownership(directory: str) -> Ownership:  # noqa: ARG001 - the protocol's signature
    """Return the ownership of a directory whose file system holds true owners."""
    return DirectOwnership()


class OverlaySnapshotter:
    """Snapshots for overlayfs. Safe for several threads and processes.

    Args:
        root: the folder of committed snapshots; it is made at the first commit.
        session: where active snapshots live.
        userxattr: whether overlay's attributes are ``user.overlay.*``, as in a user namespace.
        ownership: who owns what in a snapshot's directory.
    """

    def __init__(
        self, root: str, session: FolderSource, *, userxattr: bool, ownership: OwnershipSource = direct_ownership
    ) -> None:
        self._root = os.path.abspath(root)
        self._session = session
        self._userxattr = userxattr
        self._ownership = ownership
        # Committed snapshots never change, so that what was read of one holds while it exists.
        self._parents: dict[str, str | None] = {}
        self._layers: dict[str, DirectoryLayer] = {}
        self._whole: set[str] = set()

    def prepare(self, parent: str | None) -> ActiveSnapshot:
        """Begin a snapshot on top of a committed one, with the owner and mode of its root directory.

        Raises:
            StoreError: a parent does not exist, there are too many, or the store can't be written.
        """
        lowers = tuple(self._directory(name) for name in self._chain(parent))
        if len(lowers) >= MAX_DEPTH:
            raise StoreError(
                f"snapshot {parent} has {len(lowers)} layers below it; the kernel stacks {MAX_DEPTH}",
                hint="put fewer instructions into one chain of stages",
            )
        folder = self._session.new_dir()
        upper, work = os.path.join(folder, "fs"), os.path.join(folder, "work")
        try:
            os.mkdir(upper, 0o755)
            os.mkdir(work, 0o755)
            self._copy_root(lowers[0] if lowers else None, upper)
        except OSError as error:
            remove_folder(folder)
            raise failed("prepare a snapshot", error) from error
        return ActiveSnapshot(folder, parent, lowers, upper, work, self._userxattr)

    def commit(self, active: ActiveSnapshot, name: str | None = None) -> str:
        """Make an active snapshot permanent and return its name; one that is there already is kept.

        Raises:
            StoreError: the name is not well formed, or the store can't be written.
        """
        name = name or _random_name()
        target = self._folder(name)
        try:
            _remove_work(active.work)
            with open(os.path.join(active.key, "parent"), "w", encoding="ascii") as file:
                file.write(active.parent or "")
            try:
                os.rename(active.key, target)
            except FileNotFoundError:
                os.makedirs(self._root, exist_ok=True)
                os.rename(active.key, target)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise failed(f"commit snapshot {name}", error) from error
            if self._is_whole(name):
                self.discard(active)
            else:
                self._replace(active, name)
        return name

    def _replace(self, active: ActiveSnapshot, name: str) -> None:
        """Put an active snapshot in the place of what somebody has left of a committed one."""
        broken = self._session.new_dir()
        try:
            os.rename(self._folder(name), os.path.join(broken, "broken"))
            os.rename(active.key, self._folder(name))
        except OSError as error:
            raise failed(f"replace the damaged snapshot {name}", error) from error
        finally:
            remove_folder(broken)

    def discard(self, active: ActiveSnapshot) -> None:
        """Throw an active snapshot away."""
        remove_folder(active.key)

    def parent(self, name: str) -> str | None:
        """Return the parent of a committed snapshot.

        Raises:
            StoreError: there is no such snapshot.
        """
        if name in self._parents:
            return self._parents[name]
        text = self._read_parent(name)
        if text is None:
            raise StoreError(f"there is no snapshot {name} in the store")
        self._parents[name] = parent = text or None
        return parent

    def exists(self, name: str) -> bool:
        """Tell whether a committed snapshot and all its parents are there.

        The snapshot itself is looked for each time; parents that were found once are not looked for again.
        """
        walked: list[str] = []
        current: str | None = name
        while current is not None and not (walked and current in self._whole):
            text = self._read_parent(current)
            walked.append(current)
            if text is None or len(walked) > MAX_DEPTH or not os.path.isdir(self._directory(current)):
                self._forget(current)
                return False
            current = text or None
        self._whole.update(walked)
        return True

    def tree(self, name: str | None) -> UnionTree:
        """Return the merged file system of a committed snapshot.

        Raises:
            StoreError: the snapshot, or a parent of it, does not exist.
        """
        return UnionTree([self._layer(each) for each in self._chain(name)])

    def upper_tree(self, active: ActiveSnapshot) -> UnionTree:
        """Return the merged file system of an active snapshot as it is now; nothing may write to it meanwhile."""
        return self.tree(active.parent).with_top(self._new_layer(active.upper))

    def ownership(self, active: ActiveSnapshot) -> Ownership:
        """Return who owns what in the upper directory of an active snapshot."""
        return self._ownership(active.upper)

    def directory(self, name: str) -> str:
        """Return the host path of a committed snapshot's own directory, in overlay format.

        Raises:
            StoreError: there is no such snapshot.
        """
        self.parent(name)
        return self._directory(name)

    def remove(self, name: str) -> None:
        """Remove a committed snapshot that no other has as its parent.

        Raises:
            StoreError: another snapshot stands on it, or it can't be removed.
        """
        for other in self:
            if self._read_parent(other) == name:
                raise StoreError(f"snapshot {name} can't be removed: {other} stands on it")
        self._forget(name)
        doomed = os.path.join(self._session.new_dir(), "removed")
        try:
            os.rename(self._folder(name), doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failed(f"remove snapshot {name}", error) from error
        finally:
            remove_folder(os.path.dirname(doomed))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all committed snapshots, in no order."""
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return
        for name in names:
            if _NAME.fullmatch(name) and self._read_parent(name) is not None:
                yield name

    def _chain(self, name: str | None) -> list[str]:
        """Return a snapshot and its parents, topmost first."""
        chain: list[str] = []
        while name is not None:
            if len(chain) > MAX_DEPTH or name in chain:
                raise StoreError(f"snapshot {name} has too many parents")
            chain.append(name)
            name = self.parent(name)
        if chain and not os.path.isdir(self._directory(chain[0])):
            self._forget(chain[0])
            raise StoreError(f"there is no snapshot {chain[0]} in the store")
        return chain

    def _layer(self, name: str) -> DirectoryLayer:
        layer = self._layers.get(name)
        if layer is None:
            layer = self._layers[name] = self._new_layer(self._directory(name))
        return layer

    def _new_layer(self, directory: str) -> DirectoryLayer:
        return DirectoryLayer(directory, self._ownership(directory), self._userxattr)

    def _forget(self, name: str) -> None:
        self._whole.clear()
        self._parents.pop(name, None)
        self._layers.pop(name, None)

    def _folder(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} can't be the name of a snapshot")
        return os.path.join(self._root, name)

    def _directory(self, name: str) -> str:
        return os.path.join(self._folder(name), "fs")

    def _read_parent(self, name: str) -> str | None:
        """Return the recorded parent of a snapshot, "" for none; None where there is no whole snapshot."""
        try:
            with open(os.path.join(self._folder(name), "parent"), encoding="ascii") as file:
                text = file.read(256)
        except (OSError, UnicodeDecodeError):
            return None
        return text if not text or _NAME.fullmatch(text) else None

    def _is_whole(self, name: str) -> bool:
        return self._read_parent(name) is not None and os.path.isdir(self._directory(name))

    def _copy_root(self, lower: str | None, upper: str) -> None:
        """Give a new upper directory what the merged root shall have: overlayfs takes it from the topmost one."""
        if lower is None:
            os.chmod(upper, 0o755)  # noqa: S103 - the root of an image, whatever the umask
            return
        status = os.lstat(lower)
        owner = self._ownership(lower).of(b"", status)
        ownership = self._ownership(upper)
        ownership.set_(b"", os.fsencode(upper), owner)
        ownership.flush()
        os.utime(upper, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _remove_work(work: str) -> None:
    """Remove overlayfs' work directory, which as a rule holds nothing but the kernel's own empty directories."""
    try:
        for part in ("/work/incompat/volatile", "/work/incompat", "/work", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(work + part)
    except OSError:
        remove_folder(work)


def _random_name() -> str:
    return base64.b32encode(os.urandom(_NAME_BYTES)).decode().rstrip("=").lower()


def remove_folder(path: str) -> None:
    """Remove a folder with all in it; what can't be removed stays for the session's own clearing."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.rmdir(path)
        except OSError:
            with contextlib.suppress(OSError):
                remove_tree(os.fsencode(path))


def failed(what: str, error: OSError) -> StoreError:
    """Return the error for something that the store can't do."""
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
    return StoreError(f"can't {what}: {error.strerror}", hint=hint)
