"""A root file system in the making, held as entries: no privilege and no mount is needed to build it.

Large contents are spooled to files of a folder that the caller gives, small ones are held in memory.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO

from castoff.errors import InvalidImageError
from castoff.fs.entry import FileEntry, display

IN_MEMORY = 1 << 15
"""Contents of up to this many bytes are held in memory."""
USR_MERGED = (b"bin", b"lib", b"sbin")
_MAX_LINKS = 40
_CHUNK = 1 << 20


class RootTree:
    """A tree of entries by path. Parents are followed through the tree's own symbolic links, never on the host.

    Args:
        spool: a host folder that is the tree's alone, for large contents.
        mtime_ns: the modification time of what is made here instead of unpacked, in nanoseconds since 1970.
    """

    def __init__(self, spool: str, mtime_ns: int = 0) -> None:
        self._spool = spool
        self.mtime_ns = mtime_ns
        self._entries: dict[bytes, FileEntry] = {b"": FileEntry(b"", stat.S_IFDIR | 0o755, mtime_ns=mtime_ns)}
        self._count = 0
        self._linked = set[bytes]()

    def __contains__(self, path: bytes) -> bool:
        return path in self._entries

    def get(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path, its parents followed through links; None where there is none."""
        return self._entries.get(self.resolve(path))

    def read(self, path: bytes) -> bytes | None:
        """Return the content of the regular file at a path, links followed; None where there is none."""
        entry = self._entries.get(self.resolve(path, follow_last=True))
        while entry is not None and entry.hardlink is not None:
            entry = self._entries.get(entry.hardlink)
        if entry is None or not entry.is_file:
            return None
        if entry.data is not None or entry.source is None:
            return entry.data or b""
        with open(entry.source, "rb") as stream:
            return stream.read()

    def resolve(self, path: bytes, *, follow_last: bool = False) -> bytes:
        """Return a path with the symbolic links among its parents followed inside the tree.

        Raises:
            InvalidImageError: there are too many links.
        """
        done: list[bytes] = []
        todo = [part for part in path.split(b"/") if part not in (b"", b".")][::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del done[-1:]
                continue
            done.append(part)
            if not todo and not follow_last:
                break
            entry = self._entries.get(b"/".join(done))
            if entry is None or not entry.is_symlink:
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidImageError(f"the path {display(path)!r} of the image has too many symbolic links")
            del done[-1:]
            if entry.link.startswith(b"/"):
                done.clear()
            todo += [part for part in entry.link.split(b"/") if part not in (b"", b".")][::-1]
        return b"/".join(done)

    def add(self, entry: FileEntry, content: IO[bytes] | None = None) -> None:
        """Put an entry in its place, replacing what is there; missing parents are made.

        A directory over a directory, or over a link to one, changes nothing but the directory's mode and owner.

        Raises:
            InvalidImageError: a parent is not a directory, a hard link has no target, or content is cut short.
        """
        path = self.resolve(entry.path)
        if not path:
            return
        self._make_parents(path)
        if entry.is_dir:
            self._add_directory(path, entry)
            return
        old = self._entries.get(path)
        if old is not None and old.is_dir:
            raise InvalidImageError(f"the entry {display(path)!r} would replace a directory")
        if old is not None and old.is_file:
            self._unlink(path)
        if entry.hardlink is not None:
            target = self.resolve(entry.hardlink)
            first = self._entries.get(target)
            if first is None or not first.is_file or target == path:
                raise InvalidImageError(
                    f"the hard link {display(path)!r} leads to {display(entry.hardlink)!r}, which is not a file"
                )
            owner = first.hardlink or target
            self._linked.add(owner)
            self._entries[path] = replace(first, path=path, hardlink=owner, data=None, source=None)
            return
        self._entries[path] = replace(self._with_content(entry, content), path=path)

    def _make_parents(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0]
        missing = []
        while parent and parent not in self._entries:
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        if not self._entries[parent].is_dir:
            raise InvalidImageError(f"the parent {display(parent)!r} of {display(path)!r} is not a directory")
        for name in missing:
            self._entries[name] = FileEntry(name, stat.S_IFDIR | 0o755, mtime_ns=self.mtime_ns)

    def _add_directory(self, path: bytes, entry: FileEntry) -> None:
        old = self._entries.get(path)
        if old is not None and old.is_symlink:
            target = self._entries.get(self.resolve(path, follow_last=True))
            if target is None or not target.is_dir:
                raise InvalidImageError(f"the directory {display(path)!r} would replace a symbolic link")
            return
        if old is not None and not old.is_dir:
            raise InvalidImageError(f"the directory {display(path)!r} would replace a file")
        self._entries[path] = replace(entry, path=path)

    def _with_content(self, entry: FileEntry, content: IO[bytes] | None) -> FileEntry:
        if not entry.is_file or content is None:
            return entry
        if entry.size <= IN_MEMORY:
            data = content.read(entry.size)
            if len(data) != entry.size:
                raise InvalidImageError(f"the content of {display(entry.path)!r} is cut short")
            return replace(entry, data=data)
        self._count += 1
        source = os.path.join(self._spool, str(self._count))
        left = entry.size
        with open(source, "wb") as out:
            while left and (chunk := content.read(min(_CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)
        if left:
            raise InvalidImageError(f"the content of {display(entry.path)!r} is cut short")
        return replace(entry, source=os.fsencode(source))

    def write(self, path: bytes, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Put a regular file in its place."""
        self.add(FileEntry(path, stat.S_IFREG | mode, uid, gid, len(data), self.mtime_ns, data=data))

    def make_directory(self, path: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a directory, or change the mode and owner of one."""
        if not path:
            self._entries[b""] = FileEntry(b"", stat.S_IFDIR | mode, uid, gid, mtime_ns=self.mtime_ns)
        self.add(FileEntry(path, stat.S_IFDIR | mode, uid, gid, mtime_ns=self.mtime_ns))

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        self.add(FileEntry(path, stat.S_IFLNK | 0o777, mtime_ns=self.mtime_ns, link=target))

    def remove(self, path: bytes) -> None:
        """Remove a path and all below it; nothing happens where it is not there."""
        path = self.resolve(path)
        if path not in self._entries or not path:
            return
        if not self._entries[path].is_dir:
            self._remove_all([path])
            return
        prefix = path + b"/"
        self._remove_all([name for name in self._entries if name == path or name.startswith(prefix)])

    def remove_matching(self, patterns: Iterable[re.Pattern[bytes]]) -> None:
        """Remove all paths that a pattern matches whole, and what is below them."""
        patterns = tuple(patterns)
        gone = set[bytes]()
        for path in sorted(self._entries, key=order):
            if path and (path.rpartition(b"/")[0] in gone or any(pattern.fullmatch(path) for pattern in patterns)):
                gone.add(path)
        self._remove_all(gone)

    def prune(self, path: bytes) -> None:
        """Remove the empty directories below a path, and the path itself if it ends empty."""
        prefix = path + b"/"
        folders = [name for name, entry in self._entries.items() if entry.is_dir and (name + b"/").startswith(prefix)]
        used = {name.rpartition(b"/")[0] for name, entry in self._entries.items() if not entry.is_dir}
        for name in sorted(folders, key=order, reverse=True):
            if name in used:
                used.add(name.rpartition(b"/")[0])
            else:
                del self._entries[name]

    def _remove_all(self, paths: Iterable[bytes]) -> None:
        gone = set(paths)
        for path in gone:
            if self._entries[path].is_file:
                self._unlink(path, gone)
            del self._entries[path]

    def _unlink(self, path: bytes, gone: Iterable[bytes] = ()) -> None:
        """Hand the content of a file that goes to the first of its other hard links."""
        entry = self._entries[path]
        if path not in self._linked:
            return
        self._linked.discard(path)
        links = sorted(
            (name for name, other in self._entries.items() if other.hardlink == path and name not in gone), key=order
        )
        for name in links[1:]:
            self._entries[name] = replace(self._entries[name], hardlink=links[0])
            self._linked.add(links[0])
        for name in links[:1]:
            self._entries[name] = replace(entry, path=name)

    def paths(self) -> list[bytes]:
        """Return all paths but the root's, parents first, siblings by bytes."""
        return sorted((path for path in self._entries if path), key=order)

    def entries(self) -> Iterator[FileEntry]:
        """Yield all entries but the root, parents first, siblings by bytes; of hard links the first has the content."""
        first: dict[bytes, bytes] = {}
        for path in self.paths():
            entry = self._entries[path]
            if not entry.is_file:
                yield entry
                continue
            owner = entry.hardlink or path
            if owner in first:
                yield replace(entry, hardlink=first[owner], data=None, source=None)
            else:
                first[owner] = path
                yield replace(self._entries[owner], path=path, hardlink=None)


def order(path: bytes) -> list[bytes]:
    """Return the key by which layers are sorted: parents first, siblings by bytes."""
    return path.split(b"/")


def compile_pattern(text: bytes) -> re.Pattern[bytes]:
    """Return a pattern of a recipe as a regular expression: ``*`` within one part, ``**`` over parts."""
    out = []
    for token in re.findall(rb"\*\*/|\*\*|\*|\?|[^*?]+", text):
        special = {b"**/": rb"(?:.*/)?", b"**": rb".*", b"*": rb"[^/]*", b"?": rb"[^/]"}
        out.append(special.get(token) or re.escape(token))
    return re.compile(b"".join(out), re.DOTALL)


def merge_usr(tree: RootTree, architecture: str) -> None:
    """Make the links of a merged /usr, before any package is unpacked."""
    for name in (*USR_MERGED, b"lib64") if architecture == "amd64" else USR_MERGED:
        tree.make_directory(b"usr/" + name)
        tree.symlink(name, b"usr/" + name)
