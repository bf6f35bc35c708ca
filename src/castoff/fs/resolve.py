"""Follows symbolic links within a tree, never out of it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from castoff.errors import ContextError
from castoff.fs.entry import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.fs.entry import FileEntry

MAX_LINKS = 40
"""How many links one path may go through, as in the kernel."""


class TooManyLinksError(ContextError):
    """A path goes through more links than the kernel would follow."""

    errno = errno.ELOOP


def split(path: bytes) -> list[bytes]:
    """Return the parts of a path, with "." and empty parts left out; ".." stays."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def clean(path: bytes) -> bytes:
    """Return a path relative to the root, without ".", ".." and doubled slashes; ".." stops at the root."""
    parts: list[bytes] = []
    for part in split(path):
        if part == b"..":
            del parts[-1:]
        else:
            parts.append(part)
    return b"/".join(parts)


def resolve(lstat: Callable[[bytes], FileEntry | None], path: bytes, *, follow_last: bool = True) -> bytes:
    """Return where a path leads in the tree that `lstat` looks into.

    Absolute links start at the tree's root and ``..`` stops there. What does not exist is kept as it is written.

    Raises:
        TooManyLinksError: more than `MAX_LINKS` links.
    """
    todo = split(path)
    todo.reverse()
    done: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            del done[-1:]
            continue
        here = b"/".join([*done, part])
        entry = lstat(here) if todo or follow_last else None
        if entry is None or not entry.is_symlink:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise TooManyLinksError(f"{display(path)} goes through more than {MAX_LINKS} symbolic links")
        if entry.link.startswith(b"/"):
            done.clear()
        todo.extend(reversed(split(entry.link)))
    return b"/".join(done)
