"""What one tree has that another has not: the changes that a layer is made of."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from castoff.errors import StoreError
from castoff.fs.entry import FileEntry, display
from castoff.fs.treelayer import entry_of, join
from castoff.fs.union import open_content
from castoff.fs.xattrs import is_opaque, overlay_feature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.fs.ownership import Ownership
    from castoff.fs.union import UnionTree

_COMPARE_SIZE = 1 << 18


@dataclass(frozen=True, slots=True)
class Added:
    """A path that is new, or replaces what was there; a directory that was there keeps what is in it."""

    entry: FileEntry

    @property
    def path(self) -> bytes:
        """Where it is."""
        return self.entry.path


@dataclass(frozen=True, slots=True)
class Removed:
    """A path that is there no longer, with everything below it."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Opaque:
    """A directory whose earlier content is there no longer; what it has now follows as further changes."""

    path: bytes


Change = Added | Removed | Opaque


def iter_changes(upper: str, lower: UnionTree, ownership: Ownership, userxattr: bool) -> Iterator[Change]:
    """Yield what an overlay-format directory says against the tree below it, in layer order.

    Parents come before children and siblings in the order of their bytes. A directory that is the same as in the tree
    below (mode, owner, extended attributes) is left out unless something below it changed. The first of several hard
    links is the file, the others are links to it. Whiteouts for what the tree below does not have are dropped, and so
    are all attributes of overlayfs and castoff. Sockets are left out: no archive can hold them.

    Args:
        upper: absolute host path of the directory; nothing may write to it meanwhile.
        lower: what it lies on.
        ownership: who owns what in it.
        userxattr: whether overlay's attributes are ``user.overlay.*``.

    Raises:
        StoreError: the directory can't be read, or was written with a feature of overlayfs that hides content.
    """
    return _UpperReader(os.fsencode(upper), lower, ownership, userxattr).run()


class _Event(NamedTuple):
    """What one name in a directory gives: a change, or a directory to go down into, or both.

    An unchanged directory waits: it is part of the layer only if something below it is.
    """

    change: Change | None
    into: FileEntry | None = None
    merged: bool = False


def _drive(open_directory: Callable[[bytes, bool], Iterator[_Event]]) -> Iterator[Change]:
    """Go through directories depth first, without recursion, and yield the changes with the parents they need."""
    waiting: list[FileEntry] = []
    stack = [(b"", open_directory(b"", True))]
    while stack:
        path, events = stack[-1]
        for change, into, merged in events:
            if change is not None:
                yield from map(Added, waiting)
                waiting.clear()
                yield change
            if into is not None:
                if change is None:
                    waiting.append(into)
                stack.append((into.path, open_directory(into.path, merged)))
                break
        else:
            stack.pop()
            if waiting and waiting[-1].path == path:
                waiting.pop()


class _UpperReader:
    """One pass over an upper directory."""

    def __init__(self, upper: bytes, lower: UnionTree, ownership: Ownership, userxattr: bool) -> None:
        self._upper = upper
        self._lower = lower
        self._ownership = ownership
        self._userxattr = userxattr
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self) -> Iterator[Change]:
        try:
            status = os.lstat(self._upper)
        except OSError as error:
            raise _unreadable(self._upper, error) from error
        root = self._entry(b"", self._upper, status)
        if not _same_directory(root, self._lower.lstat(b"")):
            yield Added(root)
        yield from _drive(self._iter_directory)

    def _iter_directory(self, path: bytes, merged: bool) -> Iterator[_Event]:
        for name, host, status in self._scan(path):
            below = join(path, name)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                if merged and self._lower.lstat(below, xattrs=False) is not None:
                    yield _Event(Removed(below))
            elif stat.S_ISDIR(status.st_mode):
                yield from self._directory(below, host, status, merged)
            elif not stat.S_ISSOCK(status.st_mode):
                yield _Event(Added(self._file(below, host, status)))

    def _scan(self, path: bytes) -> list[tuple[bytes, bytes, os.stat_result]]:
        directory = self._upper + b"/" + path if path else self._upper
        try:
            with os.scandir(directory) as entries:
                return sorted((entry.name, entry.path, entry.stat(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            raise _unreadable(directory, error) from error

    def _directory(self, path: bytes, host: bytes, status: os.stat_result, merged: bool) -> Iterator[_Event]:
        entry = self._entry(path, host, status)
        self._refuse_features(path, host)
        below = self._lower.lstat(path) if merged else None
        if below is None or not below.is_dir:
            yield _Event(Added(entry), entry, False)
        elif is_opaque(host, self._userxattr) and self._lower.listdir(path):
            yield _Event(Added(entry))
            yield _Event(Opaque(path), entry, False)
        else:
            yield _Event(None if _same_directory(entry, below) else Added(entry), entry, True)

    def _file(self, path: bytes, host: bytes, status: os.stat_result) -> FileEntry:
        entry = self._entry(path, host, status)
        if entry.is_file and entry.size:
            self._refuse_features(path, host)
        if entry.inode is not None:
            first = self._links.setdefault(entry.inode, path)
            if first != path:
                return replace(entry, hardlink=first, source=None)
        return entry

    def _entry(self, path: bytes, host: bytes, status: os.stat_result) -> FileEntry:
        try:
            return entry_of(path, host, status, self._ownership, True)
        except OSError as error:
            raise _unreadable(host, error) from error

    def _refuse_features(self, path: bytes, host: bytes) -> None:
        if self._userxattr:
            return  # The kernel keeps both features off in user namespaces.
        feature = overlay_feature(host)
        if feature is not None:
            raise StoreError(
                f"{display(path)} was written with overlayfs' {feature} feature, which hides content",
                hint="mount with redirect_dir=off,metacopy=off",
            )


def diff(before: UnionTree, after: UnionTree) -> Iterator[Change]:
    """Yield the changes that make one tree into another, in layer order.

    Modification times of directories alone are no change; content is compared byte by byte unless both trees have it
    from the same host file.

    Raises:
        ContextError: a file can't be read.
    """
    links: dict[tuple[int, int], bytes] = {}
    root = after.lstat(b"")
    if root is not None and not _same_directory(root, before.lstat(b"")):
        yield Added(root)
    for change in _drive(lambda path, merged: _diff_directory(before, after, path, merged)):
        yield Added(_with_link(change.entry, links)) if isinstance(change, Added) else change


def _diff_directory(before: UnionTree, after: UnionTree, path: bytes, merged: bool) -> Iterator[_Event]:
    new = set(after.listdir(path))
    old = set(before.listdir(path)) if merged else set()
    for name in sorted(new | old):
        below = join(path, name)
        entry = after.lstat(below) if name in new else None
        if entry is None:
            yield _Event(Removed(below))
            continue
        if stat.S_ISSOCK(entry.mode):
            continue
        earlier = before.lstat(below) if name in old else None
        if entry.is_dir:
            was_directory = earlier is not None and earlier.is_dir
            yield _Event(None if _same_directory(entry, earlier) else Added(entry), entry, was_directory)
        elif earlier is None or not _same_file(earlier, entry):
            yield _Event(Added(entry))


def _with_link(entry: FileEntry, links: dict[tuple[int, int], bytes]) -> FileEntry:
    if entry.inode is None:
        return entry
    first = links.setdefault(entry.inode, entry.path)
    return entry if first == entry.path else replace(entry, hardlink=first, source=None, data=None)


def _same_directory(one: FileEntry, other: FileEntry | None) -> bool:
    return (
        other is not None
        and one.mode == other.mode
        and one.uid == other.uid
        and one.gid == other.gid
        and one.xattrs == other.xattrs
    )


def _same_file(one: FileEntry, other: FileEntry) -> bool:
    """Tell whether two entries that are no directories are equal in everything that a layer records."""
    if (one.mode, one.uid, one.gid, one.size, one.mtime_ns, one.link, one.rdev, one.xattrs) != (
        other.mode,
        other.uid,
        other.gid,
        other.size,
        other.mtime_ns,
        other.link,
        other.rdev,
        other.xattrs,
    ):
        return False
    if not one.is_file or (one.source is not None and one.source == other.source):
        return True
    with open_content(one) as left, open_content(other) as right:
        while True:
            block = left.read(_COMPARE_SIZE)
            if block != right.read(_COMPARE_SIZE):
                return False
            if not block:
                return True


def _unreadable(host: bytes, error: OSError) -> StoreError:
    return StoreError(f"can't read {display(host)} in the store: {error.strerror}")
