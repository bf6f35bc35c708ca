"""What a build context holds, what its ignore file leaves out, and which pattern decided that."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.context.digests import DigestCache
from castoff.context.ignore import IgnorePatterns, number_patterns
from castoff.context.local import LocalContext
from castoff.errors import ContextError
from castoff.fs.entry import display

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """Something in a build context.

    Attributes:
        path: from the context's root, as text for people.
        type: ``file``, ``directory``, ``link``, ``pipe`` or ``device``.
        size: in bytes; 0 for anything but a file.
        mode: its permission bits.
    """

    path: str
    type: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Something in the folder that is not in the context. What is below an excluded directory is not looked at.

    Attributes:
        path: from the context's root, as text for people.
        type: as of `ContextEntry`, or ``socket``, which no ignore file has to name.
        size: in bytes; of a directory the sum of all files in it.
        line: the line of the ignore file, from 1; 0 for a socket.
        pattern: the pattern on it; "" for a socket.
    """

    path: str
    type: str
    size: int
    line: int = 0
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """A build context.

    Attributes:
        ignore_file: host path of the ignore file that counts; "" where there is none.
        entries: what it holds, parents first, siblings sorted; not the root itself.
        exclusions: what is left out, sorted by path.
    """

    ignore_file: str
    entries: tuple[ContextEntry, ...]
    exclusions: tuple[Exclusion, ...]

    @property
    def size(self) -> int:
        """The bytes of all files that it holds."""
        return sum(entry.size for entry in self.entries)


def ignore_candidates(context: str, dockerfile: str) -> tuple[str, ...]:
    """Return the host paths of the ignore files, the first that is there being the one that counts.

    Args:
        context: folder of the build context.
        dockerfile: host path of the Dockerfile, which may have an ignore file of its own; "" for none.
    """
    general = os.path.join(context, ".dockerignore")
    return (f"{dockerfile}.dockerignore", general) if dockerfile else (general,)


def survey(context: str, dockerfile: str) -> Survey:
    """Look at all of a build context. Nothing is read but the ignore file, and no link is followed.

    Args:
        context: folder of the build context.
        dockerfile: host path of the Dockerfile; it need not be there.

    Raises:
        ContextError: something can't be read, or the ignore file is malformed.
    """
    ignore_file, data = _read_ignore_file(ignore_candidates(context, dockerfile))
    ignore = IgnorePatterns.parse(data) if data else None
    local = LocalContext(os.path.abspath(context), ignore, DigestCache(None))
    try:
        taken = [entry for entry in local.walk(b"") if entry.path]
    finally:
        local.close()
    entries = tuple(
        ContextEntry(
            display(entry.path),
            _TYPES.get(stat.S_IFMT(entry.mode), "file"),
            entry.size if entry.is_file else 0,
            stat.S_IMODE(entry.mode),
        )
        for entry in taken
    )
    lines = number_patterns(data)
    kept = {entry.path for entry in taken}
    exclusions = tuple(
        _exclusion(local.root, path, ignore, lines) for path in sorted(_left_out(local)) if path not in kept
    )
    return Survey(ignore_file, entries, exclusions)


def _read_ignore_file(candidates: tuple[str, ...]) -> tuple[str, bytes]:
    for path in candidates:
        try:
            with open(path, "rb") as file:
                return path, file.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ContextError(f"{path} can't be read: {error.strerror}") from error
    return "", b""


def _left_out(local: LocalContext) -> Iterator[bytes]:
    """Yield the paths that a walk did not look into, and of the directories that it did those that are excluded."""
    for folder, (_own, used, rest) in local.listed.items():
        prefix = folder + b"/" if folder else b""
        yield from (prefix + name for name in rest)
        yield from (
            prefix + name for name, mark in used.items() if stat.S_ISDIR(mark.mode) and local.excludes(prefix + name)
        )


def _exclusion(root: str, path: bytes, ignore: IgnorePatterns | None, lines: list[tuple[int, str]]) -> Exclusion:
    host = os.fsencode(root) + b"/" + path
    try:
        status = os.lstat(host)
    except OSError as error:
        raise ContextError(f"{display(path)} can't be read: {error.strerror}") from error
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "file")
    size = status.st_size if kind == "file" else 0
    if kind == "directory":
        size = _weight(host)
    index = (
        ignore.deciding_index(os.fsdecode(path)) if ignore is not None and ignore.excludes(os.fsdecode(path)) else None
    )
    if index is None:
        return Exclusion(display(path), kind, size)
    return Exclusion(display(path), kind, size, *lines[index])


def _weight(folder: bytes) -> int:
    """Return the bytes of all files below a folder; what can't be read counts for nothing."""
    total = 0
    for root, _folders, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total
