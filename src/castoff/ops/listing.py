"""What a selection held, file by file, kept under its digest: so that a later build can say what has changed.

A selection's digest tells that something is different, and not what. Lists are written when a digest is new, beside
the cache records; nothing is decided by them, and one that is lost costs a message its details.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.fs.entry import display

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from castoff.fs.entry import FileEntry
    from castoff.ops.select import Selected, SourceTree

MAX_FILES = 10_000
"""How many entries of a selection are listed."""
_MAX_LISTS = 512
_FOLDER = "explain/files"
_LIMIT = 16 << 20
_SHOWN = 12
"""How many digits of a digest are kept."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is not what it was.

    Attributes:
        path: from the root of its source.
        before: what it was, such as ``sha256 ab12cd34ef56``, ``mode 0644``, ``link to x``; "" where it is new.
        after: what it is; "" where it is gone.
    """

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a selection by path: mode, owner ("" where none is kept), and content in a few digits.

    Attributes:
        rows: by path; a path that was selected twice is in it once.
        complete: whether they are all there are.
    """

    rows: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    complete: bool = True

    def changes(self, later: Listing) -> Iterator[FileChange]:
        """Yield what is different in a later listing: what changed, what is new, what is gone."""
        for path, row in later.rows.items():
            before = self.rows.get(path)
            if before is not None and before != row:
                yield FileChange(path, *_difference(before, row))
        if self.complete:
            yield from (FileChange(path, "", _state(row)) for path, row in later.rows.items() if path not in self.rows)
        if later.complete:
            yield from (FileChange(path, _state(row), "") for path, row in self.rows.items() if path not in later.rows)


def _difference(before: tuple[int, str, str], after: tuple[int, str, str]) -> tuple[str, str]:
    if stat.S_IFMT(before[0]) != stat.S_IFMT(after[0]) or before[2] != after[2]:
        return _state(before), _state(after)
    if before[0] != after[0]:
        return f"mode {stat.S_IMODE(before[0]):04o}", f"mode {stat.S_IMODE(after[0]):04o}"
    return f"owner {before[1]}", f"owner {after[1]}"


def _state(row: tuple[int, str, str]) -> str:
    mode, _owner, content = row
    if stat.S_ISREG(mode):
        return f"sha256 {content}"
    if stat.S_ISLNK(mode):
        return f"link to {content}"
    return "directory" if stat.S_ISDIR(mode) else "special file"


class ListingStore:
    """Listings by the digest of what they list. Safe for several threads and processes."""

    def __init__(self, cache: str) -> None:
        """Take the folder of the store's caches."""
        self._folder = f"{cache}/{_FOLDER}"

    def keep(self, content: str, tree: SourceTree, selection: Sequence[Selected], *, owners: bool) -> None:
        """Write down what a selection holds, where that is not known; the digests of its files should be at hand."""
        path = f"{self._folder}/{content}"
        if os.path.exists(path):
            return
        rows: dict[str, tuple[int, str, str]] = {}
        complete = True
        for entry in _entries(selection):
            if len(rows) >= MAX_FILES:
                complete = False
                break
            owner = f"{entry.uid}:{entry.gid}" if owners else ""
            rows[display(entry.path)] = (entry.mode, owner, _content(tree, entry))
        data = json.dumps([complete, list(rows.items())], separators=(",", ":"), ensure_ascii=False)
        temporary = f"{path}.{os.getpid()}.{id(rows):x}"
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(zlib.compress(data.encode("utf-8", "surrogateescape"), 1))
            os.rename(temporary, path)

    def load(self, content: str) -> Listing | None:
        """Return what a selection with this digest held; None where that is not known."""
        try:
            with open(f"{self._folder}/{content}", "rb") as file:
                packed = file.read(_LIMIT)
            unpack = zlib.decompressobj()
            data = unpack.decompress(packed, _LIMIT)
            complete, rows = json.loads(data.decode("utf-8", "surrogateescape"))
            return Listing({path: (int(row[0]), str(row[1]), str(row[2])) for path, row in rows}, bool(complete))
        except (OSError, ValueError, TypeError, KeyError, IndexError, zlib.error):
            return None

    def trim(self) -> None:
        """Remove the oldest listings where there are too many."""
        try:
            with os.scandir(self._folder) as entries:
                found = [(entry.stat().st_mtime_ns, entry.path) for entry in entries]
        except OSError:
            return
        if len(found) <= _MAX_LISTS:
            return
        for _time, path in sorted(found)[: len(found) - _MAX_LISTS // 2]:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _entries(selection: Sequence[Selected]) -> Iterator[FileEntry]:
    for item in selection:
        if not item.top.is_dir:
            yield item.top
        yield from (entry for _path, entry in item.below)


def _content(tree: SourceTree, entry: FileEntry) -> str:
    if entry.is_file:
        return tree.digest(entry).hex()[:_SHOWN]
    return display(entry.link) if entry.is_symlink else str(entry.rdev or "")
