"""Applies a layer's entries to a directory that holds the whole tree, not only what changes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from castoff.errors import CastoffError, ContextError
from castoff.fs.entry import display
from castoff.fs.treelayer import join
from castoff.fs.union import UnionTree
from castoff.fs.upper import UpperWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.fs.entry import FileEntry
    from castoff.fs.ownership import Ownership


class InPlaceWriter(UpperWriter):
    """Puts entries into a directory and removes from it what they hide. A context manager; not thread-safe.

    The same calls as for an upper directory give the tree that the merged view of one would be. Directories that only
    have something put into them keep their modification times.

    Args:
        directory: absolute host path of the whole tree.
        ownership: takes the owners.
        devices: whether device nodes are made; where not, a note says so.
        problem: the error for entries that make no sense.
    """

    def __init__(
        self,
        directory: str,
        ownership: Ownership,
        *,
        devices: bool = True,
        problem: type[CastoffError] = ContextError,
    ) -> None:
        super().__init__(directory, UnionTree(), ownership, userxattr=True, problem=problem)
        self._devices = devices
        # What this writer has put, and all directories above it: a whiteout hides what was there before, not these.
        self._put: set[bytes] = set()
        self._above: set[bytes] = set()

    def hide(self, path: bytes) -> None:
        """Remove what is at a path, but for what this writer has put there."""
        try:
            self._sweep(self._target(path))
        except OSError as error:
            raise self._failed(path, error) from error

    def hide_content(self, path: bytes) -> None:
        """Remove what is in a directory, but for what this writer has put there."""
        try:
            real = self._directory(path)
            for name in os.listdir(self._root.host(real)):
                self._sweep(join(real, name))
        except OSError as error:
            raise self._failed(path, error) from error

    def _add(self, entry: FileEntry, content: Iterable[bytes | memoryview] | None) -> None:
        if not self._devices and stat.S_IFMT(entry.mode) in (stat.S_IFCHR, stat.S_IFBLK):
            self._note(f"the device {display(entry.path)} was left out: steps here could reach the host's by it")
            return
        super()._add(entry, content)
        if entry.path:
            path = self._target(entry.path)
            self._put.add(path)
            while (path := path.rpartition(b"/")[0]) and path not in self._above:
                self._above.add(path)

    def _enter(self, path: bytes) -> bytes | None:
        found = self._root.lstat(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._times.setdefault(path, found.st_mtime_ns)
        return super()._enter(path)

    def _sweep(self, path: bytes) -> None:
        found = self._root.lstat(path)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode) and (path in self._put or path in self._above):
            for name in os.listdir(self._root.host(path)):
                self._sweep(join(path, name))
        elif path not in self._put:
            self._clear(path)
