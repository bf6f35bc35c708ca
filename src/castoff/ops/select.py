"""What COPY and ADD select of a source: paths, patterns, links, and the digest of it all."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from castoff.context.globs import check_pattern, match_component
from castoff.context.ignore import IgnorePatterns, IgnoreState
from castoff.context.pathpattern import PathPattern
from castoff.errors import ContextError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import clean, resolve, split
from castoff.fs.treelayer import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_WILDCARDS = b"*?["
_BACKSLASH = 0x5C
_META = frozenset(b"*?[\\")


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
        name: the last part of the path as it was asked for, before links were followed; b"" with ``--parents``.
        top: the entry, links followed.
        below: for a directory what is taken of it, by relative path, parents first; for an archive what is in it, in
            the order of the archive, with hard links as they are in it.
        implied: paths in `below` of directories that are there only because something below them is taken.
        unpacked: whether it is an archive's content, whose links may be on the way of what follows.
    """

    name: bytes
    top: FileEntry
    below: tuple[tuple[bytes, FileEntry], ...] = ()
    implied: frozenset[bytes] = frozenset()
    unpacked: bool = False


def select(tree: SourceTree, request: Request) -> tuple[Selected, ...]:
    """Return what a step selects, in the order of its sources, matches of a pattern sorted.

    Links in a source path are followed within the tree, those that are found below it are taken as links. Patterns of
    ``--exclude`` count from the directory that is copied (with ``--parents`` from its pivot), or are matched with the
    name of a file that is copied by itself.

    Raises:
        ContextError: a path without a pattern does not exist, or something can't be read.
    """
    ignore = IgnorePatterns.of(request.excludes) if request.excludes else None
    found: list[Selected] = []
    for source in request.sources:
        if request.parents:
            found.extend(_with_parents(tree, source, ignore))
            continue
        path = clean(os.fsencode(source))
        pattern = _is_pattern(path)
        for match in _expand(tree, path) if pattern else (path,):
            selected = _one(tree, match, ignore)
            if selected is not None:
                found.append(selected)
            elif not pattern and not _is_excluded_file(tree, path, ignore):
                raise _missing(tree, path, source)
    return tuple(found)


def links_on(tree: SourceTree, path: bytes) -> tuple[FileEntry, ...]:
    """Return the symbolic links that a path goes through, in the order in which it does.

    Raises:
        ContextError: there are too many.
    """
    found: list[FileEntry] = []

    def look(here: bytes) -> FileEntry | None:
        entry = tree.lstat(here)
        if entry is not None and entry.is_symlink:
            found.append(entry)
        return entry

    resolve(look, path)
    return tuple(found)


def _missing(tree: SourceTree, path: bytes, source: str) -> ContextError:
    reason = tree.describe(resolve(tree.lstat, path))
    return ContextError(f'"{source}" is not there{reason}', hint="check the path, which starts at the source's root")


def _is_pattern(path: bytes) -> bool:
    skip = False
    for char in path:
        if skip:
            skip = False
        elif char == _BACKSLASH:
            skip = True
        elif char in _WILDCARDS:
            return True
    return False


def _expand(tree: SourceTree, pattern: bytes) -> Iterator[bytes]:
    """Yield the paths that match a pattern, sorted, as Go's ``filepath.Match`` over a walk would give them.

    The part before the first wildcard may lead through links, the rest does not.
    """
    parts = split(pattern)
    first = next(index for index, part in enumerate(parts) if _is_pattern(part))
    pending = [(resolve(tree.lstat, b"/".join(parts[:first])), first)]
    while pending:
        here, depth = pending.pop()
        if depth == len(parts):
            yield here
            continue
        entry = tree.lstat(here)
        if entry is None or not entry.is_dir:
            continue
        text = os.fsdecode(parts[depth])
        names = [name for name in tree.listdir(here) if match_component(text, os.fsdecode(name))]
        pending.extend((join(here, name), depth + 1) for name in reversed(names))


def _one(tree: SourceTree, path: bytes, ignore: IgnorePatterns | None) -> Selected | None:
    """Return what is at a path, links followed; None where nothing is, or it is left out."""
    where = resolve(tree.lstat, path)
    top = tree.lstat(where)
    if top is None:
        return None
    name = path.rpartition(b"/")[2]
    if not top.is_dir:
        return None if ignore is not None and ignore.excludes(os.fsdecode(name)) else Selected(name, top)
    entries = tree.walk(where)
    if next(entries, None) is None:
        return None  # An ignored directory in which nothing is not ignored.
    skip = len(where) + 1 if where else 0
    below, implied = _kept(((entry.path[skip:], entry, True) for entry in entries), ignore)
    return Selected(name, top, below, implied)


def _is_excluded_file(tree: SourceTree, path: bytes, ignore: IgnorePatterns | None) -> bool:
    """Tell whether a path is a file that ``--exclude`` leaves out, which is no error."""
    if ignore is None or not ignore.excludes(os.fsdecode(path.rpartition(b"/")[2])):
        return False
    entry = tree.lstat(resolve(tree.lstat, path))
    return entry is not None and not entry.is_dir


def _kept(
    found: Iterable[tuple[bytes, FileEntry, bool]], ignore: IgnorePatterns | None
) -> tuple[tuple[tuple[bytes, FileEntry], ...], frozenset[bytes]]:
    """Return what is taken of a directory, and which directories only for what is below them.

    Args:
        found: relative path and entry, parents first; False marks a directory that is wanted only if something below
            it is.
        ignore: what ``--exclude`` leaves out.
    """
    below: list[tuple[bytes, FileEntry]] = []
    implied: set[bytes] = set()
    waiting: list[tuple[bytes, FileEntry]] = []
    states: dict[bytes, IgnoreState] = {}
    for path, entry, wanted in found:
        while waiting and not path.startswith(waiting[-1][0] + b"/"):
            waiting.pop()
        excluded = False
        if ignore is not None:
            excluded, state = ignore.match(os.fsdecode(path), states.get(path.rpartition(b"/")[0]))
            if entry.is_dir:
                states[path] = state
        if wanted and not excluded:
            below.extend(waiting)
            implied.update(folder for folder, _entry in waiting)
            waiting.clear()
            below.append((path, entry))
        elif entry.is_dir:
            waiting.append((path, entry))
    return tuple(below), frozenset(implied)


def _with_parents(tree: SourceTree, source: str, ignore: IgnorePatterns | None) -> Iterator[Selected]:
    """Yield what ``--parents`` takes: from each directory that the part before ``/./`` names, what the rest matches.

    Raises:
        ContextError: neither part is a pattern, and there is no such path.
    """
    raw = os.fsencode(source)
    head, marker, tail = raw.partition(b"/./")
    pivot, wanted = (clean(head), clean(tail)) if marker else (b"", clean(raw))
    pattern = _is_pattern(pivot)
    exact = not pattern and not _is_pattern(wanted)
    for match in _expand(tree, pivot) if pattern else (pivot,):
        where = resolve(tree.lstat, match)
        top = tree.lstat(where)
        if top is None or not top.is_dir:
            if exact:
                raise _missing(tree, where, source)
            continue
        found = list(_matching(tree, where, wanted))
        if wanted and exact and not any(taken for _path, _entry, taken in found):
            raise _unmatched(tree, join(where, wanted), source)
        below, implied = _kept(found, ignore)
        yield Selected(b"", top, below, implied)


def _unmatched(tree: SourceTree, path: bytes, source: str) -> ContextError:
    if tree.lstat(resolve(tree.lstat, path)) is None:
        return _missing(tree, path, source)
    return ContextError(
        f'"{source}" leads through a symbolic link, and --parents follows none',
        hint="name the path that the link leads to, or put /./ behind the link",
    )


def _matching(tree: SourceTree, base: bytes, pattern: bytes) -> Iterator[tuple[bytes, FileEntry, bool]]:
    """Yield what a pattern of the .dockerignore language matches below a directory, and the directories above that.

    A directory that matches is taken with all in it. Only directories that can hold a match are listed, and none where
    the pattern says the name.
    """
    text = os.fsdecode(pattern)
    check_pattern(text)
    rule = PathPattern.compile(text)
    parts = split(pattern)
    skip = len(base) + 1 if base else 0
    pending: list[bytes] = [base]
    while pending:
        here = pending.pop()
        relative = here[skip:]
        entry = tree.lstat(here)
        if entry is None:
            continue
        if not pattern or rule.matches(os.fsdecode(relative)):
            yield from ((inner.path[skip:], inner, True) for inner in tree.walk(here) if inner.path != base)
            continue
        if not entry.is_dir:
            continue
        if here != base:
            if not rule.may_match_below(os.fsdecode(relative).split("/")):
                continue
            yield relative, entry, False
        depth = len(split(relative))
        plain = depth < len(parts) and all(_META.isdisjoint(part) for part in parts[: depth + 1])
        names = [parts[depth]] if plain else tree.listdir(here)
        pending.extend(join(here, name) for name in reversed(names))


def content_digest(tree: SourceTree, selection: Sequence[Selected], *, owners: bool) -> str:
    """Return the digest of what a selection brings along: names, types, modes, owners where asked, bytes, links.

    Times are no part of it. The mode of a selected directory itself is none either, since it is never copied.
    """
    digest = hashlib.sha256()
    for item in selection:
        _feed(digest.update, tree, b"", item.top, owners=owners, top=True)
        digest.update(b"%d:%b" % (len(item.name), item.name))
        for path, entry in item.below:
            if path in item.implied:
                digest.update(b"implied")
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
