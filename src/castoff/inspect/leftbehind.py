"""What was in the builder and did not come along into the runtime image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from castoff.inspect.packages import package_owners

if TYPE_CHECKING:
    from castoff.fs.entry import FileEntry
    from castoff.fs.union import UnionTree

# Folders that say nothing themselves: what is in them is named instead.
_SHELLS = frozenset(
    b"usr usr/lib usr/lib64 usr/libexec usr/share usr/local usr/local/lib usr/local/share lib opt var var/lib var/cache"
    b" root root/.cache home srv".split()
)
_PIECE = 1 << 20
_FIFTY = 50


@dataclass(frozen=True, slots=True)
class LeftGroup:
    """Files that belong together and that the runtime image does not have.

    Attributes:
        name: the name of a package, or the path of a folder with a leading slash.
        kind: which of the two.
        size: bytes of its regular files.
        files: their number.
    """

    name: str
    kind: Literal["package", "folder"]
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """All that did not come along; `groups` are largest first, and `rest` is what they leave out."""

    groups: tuple[LeftGroup, ...]
    rest: LeftGroup
    size: int
    files: int


@dataclass(slots=True)
class _Sum:
    size: int = 0
    files: int = 0


@dataclass(slots=True)
class _Contents:
    """The contents of a tree's regular files, hashed only where sizes are equal."""

    tree: UnionTree
    by_size: dict[int, list[FileEntry]] = field(default_factory=dict)
    digests: dict[int, set[bytes]] = field(default_factory=dict)

    def has(self, tree: UnionTree, entry: FileEntry) -> bool:
        """Tell whether a file of another tree has the content of one of this tree's."""
        if entry.size not in self.by_size:
            return False
        if entry.size not in self.digests:
            self.digests[entry.size] = {_digest(self.tree, own) for own in self.by_size[entry.size]}
        return _digest(tree, entry) in self.digests[entry.size]


def left_behind(builder: UnionTree, final: UnionTree, limit: int = 12) -> LeftBehind:
    """Return what a builder holds and the final image does not, in groups by package and by folder.

    A file came along if the final image has one with the same content, wherever that is. Empty files count for
    nothing. Hard links are counted once.

    Args:
        builder: the file system of the builder stage.
        final: that of the image.
        limit: how many groups are named.

    Raises:
        ContextError: a file can't be read.
    """
    contents = _Contents(final)
    for entry in final.walk(xattrs=False):
        if entry.is_file and entry.size:
            contents.by_size.setdefault(entry.size, []).append(entry)
    owners = package_owners(builder)
    sums: dict[tuple[str, Literal["package", "folder"]], _Sum] = {}
    seen: set[tuple[int, int]] = set()
    for entry in builder.walk(xattrs=False):
        if not entry.is_file or not entry.size or entry.inode in seen or contents.has(builder, entry):
            continue
        if entry.inode:
            seen.add(entry.inode)
        package = owners.get(entry.path)
        key: tuple[str, Literal["package", "folder"]]
        key = (package, "package") if package else (_folder(entry.path), "folder")
        total = sums.setdefault(key, _Sum())
        total.size += entry.size
        total.files += 1
    groups = [LeftGroup(name, kind, total.size, total.files) for (name, kind), total in sums.items()]
    groups.sort(key=lambda group: (-group.size, group.name))
    named, others = groups[:limit], groups[limit:]
    rest = LeftGroup("", "folder", sum(group.size for group in others), sum(group.files for group in others))
    return LeftBehind(tuple(named), rest, sum(group.size for group in groups), sum(group.files for group in groups))


def _folder(path: bytes) -> str:
    """Return the folder that a file is counted under: the first on its way down that means something."""
    from castoff.fs.entry import display

    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        folder = b"/".join(parts[:depth])
        if folder not in _SHELLS:
            return "/" + display(folder)
    return "/" + display(b"/".join(parts[:-1]))


def _digest(tree: UnionTree, entry: FileEntry) -> bytes:
    running = hashlib.sha256()
    with tree.open_(entry) as file:
        while piece := file.read(_PIECE):
            running.update(piece)
    return running.digest()
