"""What COPY and ADD select of a source: paths, patterns, links, and the digest of it all."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from castoff.context.globs import match_component
from castoff.context.ignore import IgnorePatterns
from castoff.errors import ContextError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import clean, resolve, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WILDCARDS = b"*?["


class SourceTree(Protocol):
    """A tree of files that steps read. Reading is idempotent."""

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path whose parents hold no links; None where there is none."""

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, sorted."""

    def walk(self, path: bytes) -> Iterator[FileEntry]:
        """Yield the entry at a path and everything below it, parents first."""

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of a regular file's content."""

    def describe(self, path: bytes) -> str:
        """Return why a path may be missing, as an end of a sentence; "" where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a step asks of a source: paths and patterns, and the options that decide what of them is taken."""

    sources: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    parents: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """One thing that was selected.

    Attributes:
        name: the last part of the path as it was asked for, before links were followed.
        top: the entry, links followed.
        below: for a directory everything in it, by relative path, parents first.
        parents: with ``--parents``: the directories that are kept, outermost first, by their path in the destination.
        path: with ``--parents``: where it goes below the destination; b"" otherwise.
        unpacked: whether it is an archive's content, whose links may be on the way of what follows.
    """

    name: bytes
    top: FileEntry
    below: tuple[tuple[bytes, FileEntry], ...] = ()
    parents: tuple[tuple[bytes, FileEntry], ...] = ()
    path: bytes = b""
    unpacked: bool = False


def select(tree: SourceTree, request: Request) -> tuple[Selected, ...]:
    """Return what a step selects, in the order of its sources, matches of a pattern sorted.

    Raises:
        ContextError: a path without a pattern does not exist, or something can't be read.
    """
    ignore = IgnorePatterns.of(request.excludes) if request.excludes else None
    found: list[Selected] = []
    for source in request.sources:
        raw = os.fsencode(source)
        pivot = _pivot(raw) if request.parents else b""
        path = clean(raw)
        if any(_has_wildcard(part) for part in split(path)):
            matches = list(_expand(tree, path, double=request.parents))
        else:
            matches = [path]
        for match in matches:
            selected = _one(tree, match, source, ignore, pivot if request.parents else None)
            if selected is not None:
                found.append(selected)
    return tuple(found)


def _pivot(raw: bytes) -> bytes:
    """Return the part of a source path before ``/./``, which ``--parents`` does not keep."""
    head, marker, _tail = raw.partition(b"/./")
    return clean(head) if marker else b""


def _has_wildcard(part: bytes) -> bool:
    skip = False
    for char in part:
        if skip:
            skip = False
        elif char == 0x5C:
            skip = True
        elif char in _WILDCARDS:
            return True
    return False


def _expand(tree: SourceTree, pattern: bytes, *, double: bool) -> Iterator[bytes]:
    """Yield the paths that match a pattern, sorted, as Go's ``filepath.Match`` over a walk would give them."""
    parts = split(pattern)
    first = next(index for index, part in enumerate(parts) if _has_wildcard(part))
    base = resolve(tree.lstat, b"/".join(parts[:first]))
    yield from _match(tree, base, parts[first:], double)


def _match(tree: SourceTree, base: bytes, parts: Sequence[bytes], double: bool) -> Iterator[bytes]:
    entry = tree.lstat(base)
    if entry is None or not entry.is_dir:
        return
    if double and parts[0] == b"**":
        if len(parts) > 1:
            yield from _match(tree, base, parts[1:], double)
        for name in tree.listdir(base):
            path = base + b"/" + name if base else name
            child = tree.lstat(path)
            if child is not None and child.is_dir:
                yield from _match(tree, path, parts, double)
            elif len(parts) == 1 and child is not None:
                yield path
        return
    for name in tree.listdir(base):
        if not match_component(os.fsdecode(parts[0]), os.fsdecode(name)):
            continue
        path = base + b"/" + name if base else name
        if len(parts) == 1:
            yield path
        else:
            yield from _match(tree, path, parts[1:], double)


def _one(
    tree: SourceTree, path: bytes, source: str, ignore: IgnorePatterns | None, pivot: bytes | None
) -> Selected | None:
    where = resolve(tree.lstat, path)
    top = tree.lstat(where)
    if top is None:
        reason = tree.describe(where)
        raise ContextError(f'"{source}" is not there{reason}', hint="check the path, which starts at the source's root")
    name = path.rpartition(b"/")[2]
    below: tuple[tuple[bytes, FileEntry], ...] = ()
    if top.is_dir:
        skip = len(where) + 1 if where else 0
        below = tuple((entry.path[skip:], entry) for entry in tree.walk(where) if entry.path != where)
        if ignore is not None:
            below = tuple((rel, entry) for rel, entry in below if not ignore.excludes(os.fsdecode(rel)))
    elif ignore is not None and ignore.excludes(os.fsdecode(name)):
        return None
    if pivot is None:
        return Selected(name, top, below)
    relative = path[len(pivot) + 1 :] if pivot else path
    return Selected(name, top, below, tuple(_parents(tree, pivot, relative)), relative)


def _parents(tree: SourceTree, pivot: bytes, relative: bytes) -> Iterator[tuple[bytes, FileEntry]]:
    parts = relative.split(b"/")
    for count in range(1, len(parts)):
        inner = b"/".join(parts[:count])
        entry = tree.lstat(resolve(tree.lstat, pivot + b"/" + inner if pivot else inner))
        if entry is not None and entry.is_dir:
            yield inner, entry


def content_digest(tree: SourceTree, selection: Sequence[Selected], *, owners: bool) -> str:
    """Return the digest of what a selection brings along: names, types, modes, owners where asked, bytes, links.

    Times are no part of it. The mode of a selected directory itself is none either, since it is never copied.
    """
    digest = hashlib.sha256()
    for item in selection:
        _feed(digest.update, tree, b"", item.top, owners=owners, top=True)
        digest.update(b"%d:%b%d:%b" % (len(item.name), item.name, len(item.path), item.path))
        for path, entry in (*item.parents, *item.below):
            _feed(digest.update, tree, path, entry, owners=owners, top=False)
        digest.update(b"end")
    return digest.hexdigest()


def _feed(update: object, tree: SourceTree, path: bytes, entry: FileEntry, *, owners: bool, top: bool) -> None:
    assert callable(update)
    mode = stat.S_IFMT(entry.mode) if top and entry.is_dir else entry.mode
    row = b"%d:%b%o" % (len(path), path, mode)
    if owners and not (top and entry.is_dir):
        row += b",%d,%d" % (entry.uid, entry.gid)
    if entry.is_file:
        row += tree.digest(entry)
    elif entry.is_symlink:
        row += b"%d>%b" % (len(entry.link), entry.link)
    elif not entry.is_dir:
        row += b"#%d" % entry.rdev
    for name, value in entry.xattrs:
        row += b"x%d:%b%d:%b" % (len(name), name, len(value), value)
    update(row)


def explain_missing(path: bytes, ignored: bool, siblings: Sequence[bytes]) -> str:
    """Return why a path is not in a build context, as the end of a sentence."""
    if ignored:
        return ": .dockerignore leaves it out of the build context"
    name = path.rpartition(b"/")[2]
    close = [other for other in siblings if other.lower() == name.lower()]
    if close:
        return f" in the build context; did you mean {display(close[0])!r}?"
    return " in the build context"
