"""The merged view of a stack of layers, read without a mount and without ever leaving the layers' folders."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import ContextError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import resolve, split
from castoff.fs.treelayer import (
    DirectoryLayer,
    EntryLayer,
    Kind,
    Mark,
    TreeLayer,
    join,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DirectoryLayer", "EntryLayer", "TreeLayer", "UnionTree", "open_content"]

_DEFAULT_DIRECTORY = stat.S_IFDIR | 0o755
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class UnionTree:
    """A tree made of layers, topmost first, merged as overlayfs merges them.

    Paths given to its methods are relative bytes; a leading slash, doubled slashes and "." parts are accepted. Layers
    must not change while a tree of them is in use. Safe for several threads.
    """

    __slots__ = ("_stacks", "layers")

    def __init__(self, layers: Sequence[TreeLayer] = ()) -> None:
        self.layers: tuple[TreeLayer, ...] = tuple(layers)
        self._stacks: dict[bytes, tuple[TreeLayer, ...]] = {b"": self.layers}

    def with_top(self, layer: TreeLayer) -> UnionTree:
        """Return a tree with one more layer on top of this one's."""
        return UnionTree((layer, *self.layers))

    def lstat(self, path: bytes, *, xattrs: bool = True) -> FileEntry | None:
        """Return the entry at a path, without following any symbolic link; None where there is none.

        Args:
            path: where to look; its parents must be directories, not links to them (see `resolve`).
            xattrs: whether extended attributes are read, which costs a system call a file.
        """
        path = _plain(path)
        if not path:
            return self._directory(b"", self.layers, xattrs)
        for layer in self._stack(path.rpartition(b"/")[0]):
            found = layer.find(path, xattrs)
            if found is None:
                continue
            if found is Mark.WHITEOUT:
                return None
            if found is Mark.IMPLIED:
                return self._directory(path, self._stack(path), xattrs)
            return found
        return None

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """Return a path with all symbolic links followed inside the tree.

        Absolute links count from the tree's root and ``..`` stops at it. Parts that do not exist are kept as they are.

        Args:
            path: a path that may hold "." and ".." parts.
            follow_last: whether a link that is the last part is followed too.

        Raises:
            TooManyLinksError: it goes through more than 40 links.
        """
        return resolve(self._link_or_none, path, follow_last=follow_last)

    def _link_or_none(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path; None for a directory that is known to be one."""
        return None if path in self._stacks else self.lstat(path, xattrs=False)

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, sorted by bytes.

        Raises:
            ContextError: there is no directory at that path.
        """
        path = _plain(path)
        stack = self._stack(path)
        if not stack and path:
            raise ContextError(f"{display(path)} is not a directory")
        return sorted(self._children(path, stack))

    def is_dir(self, path: bytes) -> bool:
        """Tell whether there is a directory at a path, without following links."""
        path = _plain(path)
        return not path or bool(self._stack(path))

    def walk(self, path: bytes = b"", *, xattrs: bool = True) -> Iterator[FileEntry]:
        """Yield the entry at a path and, if it is a directory, everything below it.

        Parents come before children and siblings in the order of their bytes; no link is followed; a path that does
        not exist gives nothing.

        Args:
            path: where to begin; its parents must be directories.
            xattrs: whether extended attributes are read.
        """
        top = self.lstat(path, xattrs=xattrs)
        if top is None:
            return
        yield top
        if not top.is_dir:
            return
        path = top.path
        pending = [self._iter_directory(path, self._stack(path), xattrs)]
        while pending:
            for entry, stack in pending[-1]:
                yield entry
                if stack:
                    pending.append(self._iter_directory(entry.path, stack, xattrs))
                    break
            else:
                pending.pop()

    def open_(self, what: FileEntry | bytes) -> BinaryIO:
        """Open the content of a regular file for reading.

        Args:
            what: an entry of this tree, or its path (not followed if a symbolic link).

        Raises:
            ContextError: there is no regular file, or it can't be read.
        """
        if isinstance(what, FileEntry):
            return open_content(what)
        entry = self.lstat(what, xattrs=False)
        if entry is None:
            raise ContextError(f"{display(what)} does not exist")
        return open_content(entry)

    def _stack(self, path: bytes) -> tuple[TreeLayer, ...]:
        """Return the layers that make up the directory at a path; () where there is no directory."""
        known = self._stacks.get(path)
        missing: list[bytes] = []
        while known is None:
            missing.append(path)
            path = path.rpartition(b"/")[0]
            known = self._stacks.get(path)
        for below in reversed(missing):
            known = _merge(below, known)
            if not known:
                # Only directories are remembered: what a caller asks for in vain must not fill the memory.
                break
            self._stacks[below] = known
        return known

    def _directory(self, path: bytes, stack: tuple[TreeLayer, ...], xattrs: bool) -> FileEntry:
        for layer in stack:
            found = layer.find(path, xattrs)
            if isinstance(found, FileEntry):
                return found
        return FileEntry(path, _DEFAULT_DIRECTORY)

    def _children(self, path: bytes, stack: tuple[TreeLayer, ...]) -> dict[bytes, tuple[TreeLayer, ...]]:
        """Return what the directory holds: for each name the layers that make it up, the first of them its own."""
        if len(stack) == 1:
            kinds = stack[0].scan(path)
            return {name: stack for name, kind in kinds.items() if kind is not Kind.WHITEOUT}
        children: dict[bytes, list[TreeLayer]] = {}
        closed: set[bytes] = set()
        for layer in stack:
            last = layer is stack[-1]
            for name, kind in layer.scan(path).items():
                if name in closed:
                    continue
                if kind is Kind.DIRECTORY:
                    children.setdefault(name, []).append(layer)
                    if not last and layer.is_opaque(join(path, name)):
                        closed.add(name)
                else:
                    closed.add(name)
                    if kind is Kind.OTHER and name not in children:
                        children[name] = [layer]
        return {name: tuple(layers) for name, layers in children.items()}

    def _iter_directory(
        self, path: bytes, stack: tuple[TreeLayer, ...], xattrs: bool
    ) -> Iterator[tuple[FileEntry, tuple[TreeLayer, ...]]]:
        children = self._children(path, stack)
        for name in sorted(children):
            layers = children[name]
            below = join(path, name)
            found = layers[0].find(below, xattrs)
            if isinstance(found, FileEntry):
                entry = found
            elif found is Mark.IMPLIED:
                entry = self._directory(below, layers, xattrs)
            else:
                raise ContextError(f"{display(below)} vanished while it was being read")
            if entry.is_dir:
                self._stacks[below] = layers
                yield entry, layers
            else:
                yield entry, ()


def _merge(path: bytes, above: tuple[TreeLayer, ...]) -> tuple[TreeLayer, ...]:
    """Return those layers of the directory above that make up a directory in it."""
    stack: list[TreeLayer] = []
    for layer in above:
        found = layer.find(path, False)
        if found is None:
            continue
        if found is Mark.WHITEOUT or (isinstance(found, FileEntry) and not found.is_dir):
            break
        stack.append(layer)
        if layer is not above[-1] and layer.is_opaque(path):
            break
    return tuple(stack)


def open_content(entry: FileEntry) -> BinaryIO:
    """Open the content of an entry, whichever way the entry holds it.

    The entry's type is looked at first, so that no FIFO or device is ever opened; the host file is opened without
    following a symbolic link.

    Raises:
        ContextError: it is not a regular file, or can't be read.
    """
    if not entry.is_file:
        raise ContextError(f"{display(entry.path)} is not a regular file")
    if entry.data is not None:
        return io.BytesIO(entry.data)
    if entry.source is None:
        if entry.size:
            raise ContextError(f"the content of {display(entry.path)} is not at hand")
        return io.BytesIO()
    return os.fdopen(open_source(entry, entry.source), "rb")


def open_source(entry: FileEntry, source: bytes) -> int:
    """Open the host file of a regular file's entry and return its descriptor.

    Raises:
        ContextError: it can't be opened, is no longer a regular file, or is not the file that the entry was made of.
    """
    try:
        descriptor = os.open(source, _OPEN_FLAGS)
    except OSError as error:
        raise ContextError(f"can't read {display(entry.path)}: {error.strerror}") from error
    try:
        _check_regular(entry, descriptor)
        check_stamp(entry, descriptor)
    except ContextError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(entry: FileEntry, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ContextError(f"{display(entry.path)} stopped being a regular file while it was being read")


def check_stamp(entry: FileEntry, descriptor: int) -> None:
    """Refuse a file that is not, or no longer, the one that an entry was made of.

    A folder of the host can change while it is copied: its files, and where its paths lead. To be called when a file
    was opened, and again once it was read.

    Raises:
        ContextError: another file is there, or it was changed.
    """
    if entry.stamp is None:
        return
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino, status.st_ctime_ns) != entry.stamp:
        raise ContextError(
            f"{display(entry.path)} changed while the build was reading it",
            hint="build again once nothing writes to it",
        )


def _plain(path: bytes) -> bytes:
    if not path or (path[0] != 47 and b"//" not in path and path[-1] != 47 and b"." not in path):  # 47: a slash
        return path
    parts = split(path)
    if b".." in parts:
        raise ContextError(f"the path {display(path)} holds a '..' part")
    return b"/".join(parts)
