"""A folder of the host as a build context."""

from __future__ import annotations

import os
import stat
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from castoff.context.digests import Fingerprint
from castoff.context.folders import ConfinedFolders
from castoff.errors import ContextError
from castoff.fs.entry import FileEntry, display

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.context.digests import DigestCache
    from castoff.context.ignore import IgnorePatterns

_KEPT_XATTRS = ("user.", "security.capability")
_OWN_XATTRS = ("user.overlay.", "user.castoff.", "user.fuseoverlayfs.")


class BuildContext(Protocol):
    """A tree of files that COPY and ADD read. Reading is idempotent; not thread-safe."""

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path whose parents hold no links; None where there is none, or it is ignored."""

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, sorted, ignored ones left out unless something below them is not."""

    def walk(self, path: bytes) -> Iterator[FileEntry]:
        """Yield the entry at a path and everything below it, parents first, siblings sorted.

        Raises:
            ContextError: something can't be read.
        """

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of a regular file's content.

        Raises:
            ContextError: it can't be read, or changed since it was seen.
        """


class LocalContext:
    """A folder of the host. Owners are 0:0 in it, and what was looked at is remembered for the no-op check.

    Nothing outside the folder is ever read: links are entries and not ways, directories are opened from one another
    and never through a link, and a file's content counts only if the file that is opened is the one that was seen
    (device, inode, change time). Whoever swaps a directory for a link while a build runs gets an error. Extended
    attributes alone are read by path.

    Attributes:
        root: host path of the folder.
        seen: every path that was looked up by itself, with its fingerprint; None where there was nothing.
        listed: every directory that was listed: its own fingerprint, the fingerprints of what was used of it, and the
            names of what was ignored.
    """

    def __init__(self, root: str, ignore: IgnorePatterns | None, digests: DigestCache) -> None:
        self.root = root
        self._root = os.fsencode(root)
        self._ignore = ignore
        self._digests = digests
        self._fingerprints: dict[bytes, Fingerprint] = {}
        self._folders = ConfinedFolders(self._root)
        self.seen: dict[bytes, Fingerprint | None] = {}
        self.listed: dict[bytes, tuple[Fingerprint, dict[bytes, Fingerprint], frozenset[bytes]]] = {}

    @property
    def bytes_read(self) -> int:
        """How many bytes had to be read, as their digests were not known."""
        return self._digests.bytes_read

    def _host(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def excludes(self, path: bytes) -> bool:
        """Tell whether the ignore file leaves a path out."""
        return bool(path) and self._ignore is not None and self._ignore.excludes(os.fsdecode(path))

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the entry at a path whose parents hold no links."""
        folder, _, name = path.rpartition(b"/")
        try:
            descriptor = self._folders.descriptor(folder)
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False) if name else os.fstat(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            self.seen[path] = None
            return None
        except OSError as error:
            raise ContextError(f"{display(path)} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise ContextError(f"{display(path)} is no path: {error}") from error
        self.seen[path] = Fingerprint.of(status)
        if stat.S_ISSOCK(status.st_mode):
            return None
        if self.excludes(path) and not (stat.S_ISDIR(status.st_mode) and self._may_descend(path)):
            return None
        try:
            return self._entry(path, status, descriptor)
        except OSError as error:
            raise ContextError(f"{display(path)} changed while it was being read", hint="build again") from error

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a directory."""
        return [entry.name for entry, _excluded in self._children(path)]

    def walk(self, path: bytes) -> Iterator[FileEntry]:
        """Yield the entry at a path and everything below it."""
        entry = self.lstat(path)
        if entry is None:
            return
        excluded = self.excludes(path)
        if not entry.is_dir:
            if not excluded:
                yield entry
            return
        yield from self._walk(entry, excluded)

    def _walk(self, top: FileEntry, excluded: bool) -> Iterator[FileEntry]:
        """Walk a directory; one that is ignored itself is yielded only once something below it is not."""
        waiting: list[FileEntry] = []
        stack: list[tuple[FileEntry, bool]] = [(top, excluded)]
        while stack:
            entry, excluded = stack.pop()
            while waiting and not _is_below(entry.path, waiting[-1].path):
                waiting.pop()
            if excluded:
                waiting.append(entry)
            else:
                yield from waiting
                waiting.clear()
                yield entry
            if entry.is_dir:
                stack.extend(reversed(self._children(entry.path)))

    def _children(self, path: bytes) -> list[tuple[FileEntry, bool]]:
        """List a directory: its entries sorted, each with whether it is ignored and only there for what is below."""
        try:
            descriptor = self._folders.listing(path)
            try:
                return self._list(path, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ContextError(
                f"{display(path) or 'the build context'} can't be read: {error.strerror}",
                hint="make it readable, or name it in .dockerignore",
            ) from error

    def _list(self, path: bytes, descriptor: int) -> list[tuple[FileEntry, bool]]:
        used: dict[bytes, Fingerprint] = {}
        ignored: set[bytes] = set()
        found: list[tuple[FileEntry, bool]] = []
        prefix = path + b"/" if path else b""
        own = Fingerprint.of(os.fstat(descriptor))
        with os.scandir(descriptor) as iterator:
            items = sorted(((os.fsencode(item.name), item) for item in iterator), key=itemgetter(0))
        for name, item in items:
            child = prefix + name
            excluded = self.excludes(child)
            if excluded and not (item.is_dir(follow_symlinks=False) and self._may_descend(child)):
                ignored.add(name)
                continue
            status = item.stat(follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                ignored.add(name)
                continue
            used[name] = Fingerprint.of(status)
            found.append((self._entry(child, status, descriptor), excluded))
        self.listed[path] = (own, used, frozenset(ignored))
        return found

    def _may_descend(self, path: bytes) -> bool:
        return self._ignore is not None and self._ignore.may_descend(os.fsdecode(path))

    def _entry(self, path: bytes, status: os.stat_result, folder: int) -> FileEntry:
        """Return the entry of what has this status; `folder` is a descriptor of the directory that it is in."""
        mode = status.st_mode
        host = self._host(path)
        if stat.S_ISREG(mode):
            self._fingerprints[path] = Fingerprint.of(status)
            return FileEntry(
                path,
                mode,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                xattrs=_xattrs(host),
                source=host,
                inode=(status.st_dev, status.st_ino) if status.st_nlink > 1 else None,
                stamp=(status.st_dev, status.st_ino, status.st_ctime_ns),
            )
        if stat.S_ISLNK(mode):
            link = os.readlink(path.rpartition(b"/")[2], dir_fd=folder)
            return FileEntry(path, mode, mtime_ns=status.st_mtime_ns, link=link)
        if stat.S_ISDIR(mode):
            return FileEntry(path, mode, mtime_ns=status.st_mtime_ns, xattrs=_xattrs(host))
        return FileEntry(path, mode, mtime_ns=status.st_mtime_ns, rdev=status.st_rdev)

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of a regular file's content."""
        fingerprint = self._fingerprints.get(entry.path)
        if fingerprint is None or entry.source is None:
            raise ContextError(f"{display(entry.path)} is not a regular file of the build context")
        return self._digests.digest(entry.path, entry.source, fingerprint)

    def known_digest(self, path: bytes) -> bytes | None:
        """Return the digest of a file that was read in this build, or was known; None for any other."""
        return self._digests.known(path)

    def save(self) -> None:
        """Keep the digests that were learnt, for the next build. Atomic."""
        self._digests.save()

    def close(self) -> None:
        """Close the directories that are open. Idempotent; the context can still be read, which opens them again."""
        self._folders.close()


def _is_below(path: bytes, folder: bytes) -> bool:
    return not folder or path.startswith(folder + b"/")


def _xattrs(host: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes that travel into an image; a file system without them has none."""
    try:
        names = os.listxattr(host, follow_symlinks=False)
        if not names:
            return ()
        kept = sorted(name for name in names if name.startswith(_KEPT_XATTRS) and not name.startswith(_OWN_XATTRS))
        return tuple((os.fsencode(name), os.getxattr(host, name, follow_symlinks=False)) for name in kept)
    except OSError:
        return ()
