"""Which paths of a tree a set of paths and patterns needs, once the symbolic links on the way are followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from castoff.context.globs import match_component
from castoff.fs.resolve import MAX_LINKS, clean, split

if TYPE_CHECKING:
    from castoff.fs.entry import FileEntry

_BACKSLASH = 0x5C
_WILDCARDS = b"*?["


def follow_links(
    lstat: Callable[[bytes], FileEntry | None], listdir: Callable[[bytes], list[bytes]], paths: Iterable[bytes]
) -> tuple[bytes, ...]:
    """Return the paths that someone needs who has no more of the tree than these, and wants `paths` of it.

    Every link that a path goes through is in the result beside what it leads to. The last part of a path may be a
    pattern, which stays as it is; the links that it matches are followed. What does not exist is kept as it is.

    Args:
        lstat: gives the entry at a path, or None.
        listdir: gives the names in a directory; never asked for anything else.
        paths: relative to the tree's root; ``..`` and links that lead out of it stop at the root.

    Returns:
        The paths sorted, none within another; nothing at all where the whole tree is needed.
    """
    found: set[bytes] = set()
    pending = [(clean(path), 0) for path in paths]
    seen = set(pending)
    while pending:
        path, links = pending.pop()
        for target in _step(lstat, listdir, path, found):
            following = (target, links + 1)
            if links < MAX_LINKS and following not in seen:
                seen.add(following)
                pending.append(following)
    return _outermost(found)


def _step(
    lstat: Callable[[bytes], FileEntry | None],
    listdir: Callable[[bytes], list[bytes]],
    path: bytes,
    found: set[bytes],
) -> list[bytes]:
    """Go along a path to the first link, note how far it came, and return what is to be followed from there."""
    parts = split(path)
    for index in range(len(parts)):
        here = b"/".join(parts[: index + 1])
        targets = list(_targets(lstat, listdir, here))
        if targets:
            found.add(here)
            rest = b"/".join(parts[index + 1 :])
            return [clean(target + b"/" + rest) for target in targets]
    found.add(path)
    return []


def _targets(
    lstat: Callable[[bytes], FileEntry | None], listdir: Callable[[bytes], list[bytes]], path: bytes
) -> Iterator[bytes]:
    """Yield where a path leads if it is a link, or if it is a pattern that matches links."""
    folder, _, name = path.rpartition(b"/")
    names = [name]
    if _is_pattern(name):
        parent = lstat(folder) if folder else None
        listed = listdir(folder) if not folder or (parent is not None and parent.is_dir) else []
        pattern = os.fsdecode(name)
        names = [item for item in listed if match_component(pattern, os.fsdecode(item))]
    for item in names:
        entry = lstat(folder + b"/" + item if folder else item)
        if entry is not None and entry.is_symlink:
            yield entry.link if entry.link.startswith(b"/") else folder + b"/" + entry.link


def _is_pattern(name: bytes) -> bool:
    escaped = False
    for char in name:
        if escaped:
            escaped = False
        elif char == _BACKSLASH:
            escaped = True
        elif char in _WILDCARDS:
            return True
    return False


def _outermost(paths: set[bytes]) -> tuple[bytes, ...]:
    if b"" in paths:
        return ()
    kept = {path for path in paths if not any(parent in paths for parent in _parents(path))}
    return tuple(sorted(kept))


def _parents(path: bytes) -> Iterator[bytes]:
    end = path.find(b"/")
    while end >= 0:
        yield path[:end]
        end = path.find(b"/", end + 1)
