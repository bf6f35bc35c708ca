"""A layer in the making: entries put on top of a tree that is only read."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError
from castoff.fs.changes import Added, Opaque
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import resolve
from castoff.fs.treelayer import join

if TYPE_CHECKING:
    from castoff.fs.changes import Change
    from castoff.fs.union import UnionTree
    from castoff.image.users import Owner

_DEVICE = -3
"""Stands for the device in the `inode` of files that are linked here, and not on the host."""


class Staging:
    """Entries that a step adds, looked up together with what lies below. Not thread-safe."""

    def __init__(self, lower: UnionTree) -> None:
        self._lower = lower
        self._entries: dict[bytes, FileEntry] = {}
        self._hidden: set[bytes] = set()
        self._children: dict[bytes, dict[bytes, None]] | None = None
        self._inodes = 0
        self._now = time.time_ns()

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path whose parents hold no links."""
        return self._entries.get(path) or self._below(path)

    def _below(self, path: bytes) -> FileEntry | None:
        """Return the entry that the lower tree has at a path, unless it was removed."""
        if self._hidden:
            here = path
            while here:
                if here in self._hidden:
                    return None
                here = here.rpartition(b"/")[0]
        return self._lower.lstat(path)

    def resolve(self, path: bytes, root: bytes = b"") -> bytes:
        """Return where a path leads, links followed within the image, or within its directory `root` as in a chroot.

        Raises:
            ContextError: it leads through too many links.
        """
        if not root:
            return resolve(self.lstat, path)
        return join(root, resolve(lambda inner: self.lstat(join(root, inner)), path)).rstrip(b"/")

    def new_inode(self) -> tuple[int, int]:
        """Return what marks entries of this layer as links to one file."""
        self._inodes += 1
        return _DEVICE, self._inodes

    def make_directories(self, path: bytes, owner: Owner, mode: int = 0o755) -> None:
        """Make a directory and every missing parent; what exists stays as it is. `path` holds no links.

        Raises:
            ContextError: something in the way is not a directory.
        """
        missing: list[bytes] = []
        while path:
            entry = self.lstat(path)
            if entry is not None:
                if not entry.is_dir:
                    raise ContextError(
                        f"/{display(path)} is not a directory, and a directory is wanted there",
                        hint="name another destination, or remove it in an earlier step",
                    )
                break
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for name in reversed(missing):
            self._set(name, FileEntry(name, stat.S_IFDIR | mode, owner.uid, owner.gid, mtime_ns=self._now))

    def replace(self, entry: FileEntry) -> None:
        """Put an entry where anything may be: only a directory over a directory keeps what is in it."""
        there = self.lstat(entry.path)
        if there is not None and not (there.is_dir and entry.is_dir):
            self._remove(entry.path)
        self._set(entry.path, entry)

    def _remove(self, path: bytes) -> None:
        there = self._entries.pop(path, None)
        if there is None or there.is_dir:
            self._remove_below(path)
        if self._below(path) is not None:
            self._hidden.add(path)

    def _remove_below(self, path: bytes) -> None:
        """Drop the entries inside of a directory that goes. All are looked at once in the life of a layer, no more."""
        if self._children is None:
            self._children = {}
            for known in self._entries:
                self._note_child(known)
        pending = list(self._children.pop(path, ()))
        while pending:
            known = pending.pop()
            self._entries.pop(known, None)
            pending.extend(self._children.pop(known, ()))

    def _note_child(self, path: bytes) -> None:
        """Remember which directory a path is in, and that in which one, up to the root."""
        assert self._children is not None
        while path:
            parent = path.rpartition(b"/")[0]
            known = self._children.setdefault(parent, {})
            if path in known:
                return
            known[path] = None
            path = parent

    def _set(self, path: bytes, entry: FileEntry) -> None:
        self._entries[path] = entry
        if self._children is not None:
            self._note_child(path)

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link at `path` to the file at `target`; return False where there is nothing to link to."""
        there = self.lstat(target)
        if there is None or there.is_dir:
            return False
        if there.inode is None or target not in self._entries:
            there = replace(there, inode=self.new_inode())
            self._set(target, there)
        self.replace(there.with_path(path))
        return True

    def put(self, entry: FileEntry) -> None:
        """Put an entry in place of what is there. Its parents exist.

        Raises:
            ContextError: a directory would replace something else, or the other way round.
        """
        there = self.lstat(entry.path)
        if there is not None and there.is_dir != entry.is_dir:
            raise ContextError(
                f"cannot replace the directory /{display(entry.path)} with a file"
                if there.is_dir
                else f"cannot copy a directory over /{display(entry.path)}, which is not one",
                hint="name another destination, or remove what is there in an earlier step",
            )
        self._set(entry.path, entry)

    def touch(self, path: bytes) -> None:
        """Put an existing entry of the lower tree into the layer again, unchanged."""
        entry = self.lstat(path)
        if entry is not None and path and path not in self._entries:
            self._set(path, entry)

    def changes(self) -> tuple[Change, ...]:
        """Return the layer: the entries and the directories that they are in, parents first, siblings by bytes.

        What was replaced is hidden by what is in its place, and a directory that was replaced by another is opaque.
        """
        entries = dict(self._entries)
        for path in self._entries:
            parent = path.rpartition(b"/")[0]
            while parent and parent not in entries:
                there = self._below(parent)
                if there is None:
                    break
                entries[parent] = there
                parent = parent.rpartition(b"/")[0]
        changes: list[Change] = []
        for entry in _linked(sorted(entries.values(), key=_order)):
            changes.append(Added(entry))
            if entry.is_dir and entry.path in self._hidden:
                changes.append(Opaque(entry.path))
        return tuple(changes)


def _order(entry: FileEntry) -> list[bytes]:
    return entry.path.split(b"/")


def _linked(entries: list[FileEntry]) -> list[FileEntry]:
    """Make hard links of the entries that share an inode on the host: the first in order is the file."""
    first: dict[tuple[int, int], bytes] = {}
    result: list[FileEntry] = []
    for entry in entries:
        if entry.inode is None or not entry.is_file:
            result.append(entry)
            continue
        known = first.setdefault(entry.inode, entry.path)
        result.append(entry if known == entry.path else replace(entry, hardlink=known))
    return result
