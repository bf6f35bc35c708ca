"""A layer in the making: entries put on top of a tree that is only read."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError
from castoff.fs.changes import Added
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import resolve

if TYPE_CHECKING:
    from castoff.fs.changes import Change
    from castoff.fs.union import UnionTree
    from castoff.image.users import Owner


class Staging:
    """Entries that a step adds, looked up together with what lies below. Not thread-safe."""

    def __init__(self, lower: UnionTree) -> None:
        self._lower = lower
        self._entries: dict[bytes, FileEntry] = {}

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path whose parents hold no links."""
        return self._entries.get(path) or self._lower.lstat(path)

    def resolve(self, path: bytes) -> bytes:
        """Return where a path leads, links followed within the image."""
        return resolve(self.lstat, path)

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
            self._entries[name] = FileEntry(name, stat.S_IFDIR | mode, owner.uid, owner.gid)

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
        self._entries[entry.path] = entry

    def touch(self, path: bytes) -> None:
        """Put an existing entry of the lower tree into the layer again, unchanged."""
        entry = self.lstat(path)
        if entry is not None and path:
            self._entries.setdefault(path, entry)

    def changes(self) -> tuple[Change, ...]:
        """Return the layer: the entries and the directories that they are in, parents first, siblings by bytes."""
        entries = dict(self._entries)
        for path in self._entries:
            parent = path.rpartition(b"/")[0]
            while parent and parent not in entries:
                there = self._lower.lstat(parent)
                if there is None:
                    break
                entries[parent] = there
                parent = parent.rpartition(b"/")[0]
        return tuple(Added(entry) for entry in _linked(sorted(entries.values(), key=_order)))


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
