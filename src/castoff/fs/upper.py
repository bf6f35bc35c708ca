"""Writes entries into a directory in overlay format, as they would change the tree that it lies on."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from castoff.errors import CastoffError, ContextError, StoreError
from castoff.fs.entry import FileEntry, display
from castoff.fs.ownership import Owner
from castoff.fs.resolve import MAX_LINKS, split
from castoff.fs.rooted import RootedDirectory, copy_bytes, write_all
from castoff.fs.treelayer import join
from castoff.fs.union import check_stamp, open_source
from castoff.fs.xattrs import belongs_to_image, is_opaque, opaque_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from castoff.fs.ownership import Ownership
    from castoff.fs.union import UnionTree

_FORMAT = 0o170000
_NEW_DIRECTORY = Owner(stat.S_IFDIR | 0o755, 0, 0, 0)
_MAX_NOTES = 100
_PATH_MAX = 4096
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


class UpperWriter:
    """Puts entries into an upper directory. A context manager; not thread-safe.

    Paths are looked up in the merged tree, as a process inside it would find them: a symbolic link among the parents
    is followed within the tree, never on the host. Missing parents are made, with the metadata that they have in the
    tree below or else 0755 and root's. Nothing is written outside the directory.

    Its methods raise the class given as `problem` where an entry can't be put where it says, and StoreError where the
    host can't write.

    Args:
        upper: absolute host path of the directory, on a file system that overlayfs accepts.
        lower: the tree that it lies on.
        ownership: takes the owners.
        userxattr: whether overlay's attributes are ``user.overlay.*``.
        problem: the error for entries that make no sense.
    """

    def __init__(
        self,
        upper: str,
        lower: UnionTree,
        ownership: Ownership,
        userxattr: bool,
        *,
        problem: type[CastoffError] = ContextError,
    ) -> None:
        self.notes: list[str] = []
        self._lower = lower
        self._ownership = ownership
        self._userxattr = userxattr
        self._problem = problem
        try:
            self._root = RootedDirectory(upper)
            self._times = {b"": os.stat(upper).st_mtime_ns}
        except OSError as error:
            raise StoreError(f"can't write to {display(os.fsencode(upper))}: {error.strerror}") from error
        # Owners are set by host path, which the kernel wants to be shorter than a page.
        self._longest = _PATH_MAX - 2 - len(self._root.host(b""))
        # Directories known to exist in the upper one, and whether what lies below shows through.
        self._merged = {b"": bool(lower.layers)}
        # Where directories really are, by the path that entries give.
        self._real: dict[bytes, bytes] = {b"": b""}

    def __enter__(self) -> UpperWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what was written is complete only after `finish`."""
        self._root.close()

    def add(self, entry: FileEntry, content: Iterable[bytes | memoryview] | None = None) -> None:
        """Put an entry in place of what is there; a directory keeps what is in it.

        Args:
            entry: what to put.
            content: the bytes of a regular file; None takes them from the entry.
        """
        try:
            self._add(entry, content)
        except OSError as error:
            raise self._failed(entry.path, error) from error

    def hide(self, path: bytes) -> None:
        """Hide what the tree below has at a path; what was put into the upper directory stays.

        This is what a whiteout in a layer means.
        """
        try:
            target = self._target(path)
            if not self._merged[target.rpartition(b"/")[0]]:
                return
            found = self._root.lstat(target)
            if found is None:
                if self._lower.lstat(target, xattrs=False) is not None:
                    self._root.mknod(target, stat.S_IFCHR)
            elif stat.S_ISDIR(found.st_mode):
                self._make_opaque(self._directory(target))
        except OSError as error:
            raise self._failed(path, error) from error

    def remove(self, path: bytes) -> None:
        """Make a path vanish from the merged tree, with everything below it."""
        try:
            self._remove(self._target(path))
        except OSError as error:
            raise self._failed(path, error) from error

    def hide_content(self, path: bytes) -> None:
        """Hide what the tree below has in a directory; what was put into the upper one stays."""
        try:
            self._make_opaque(self._directory(path))
        except OSError as error:
            raise self._failed(path, error) from error

    def finish(self) -> None:
        """Set the times of directories and write the owners down. Call it once, after the last entry."""
        path = b""
        try:
            for path, mtime_ns in self._times.items():
                self._root.set_times(path, mtime_ns)
        except OSError as error:
            raise self._failed(path, error) from error
        self._ownership.flush()

    def _add(self, entry: FileEntry, content: Iterable[bytes | memoryview] | None) -> None:
        kind = entry.mode & _FORMAT
        if entry.hardlink is not None:
            self._link(entry, entry.hardlink)
        elif kind == stat.S_IFDIR:
            self._put_directory(entry)
        elif kind == stat.S_IFREG:
            self._put_file(entry, content)
        elif kind == stat.S_IFLNK:
            self._put_symlink(entry)
        else:
            self._put_node(entry, kind)

    def _put_file(self, entry: FileEntry, content: Iterable[bytes | memoryview] | None) -> None:
        target = self._target(entry.path)
        mode = entry.mode & 0o777 | stat.S_IWUSR
        try:
            descriptor = self._root.create(target, mode)
        except FileExistsError:
            self._clear(target)
            descriptor = self._root.create(target, mode)
        try:
            if content is not None:
                for block in content:
                    write_all(descriptor, block)
            else:
                self._write_own(entry, descriptor)
            self._ownership.set_(target, descriptor, Owner(entry.mode, entry.uid, entry.gid, 0))
            if entry.xattrs:
                self._set_xattrs(entry, descriptor)
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _write_own(self, entry: FileEntry, descriptor: int) -> None:
        if entry.data is not None:
            if entry.data:
                write_all(descriptor, entry.data)
        elif entry.source is not None:
            source = open_source(entry, entry.source)
            try:
                # One byte more than expected: a file that grew must not pass either.
                copied = copy_bytes(source, descriptor, entry.size) + len(os.read(source, 1))
                check_stamp(entry, source)
            finally:
                os.close(source)
            if copied != entry.size:
                raise ContextError(
                    f"{display(entry.path)} changed while it was being read",
                    hint="build again when nothing writes to it",
                )
        elif entry.size:
            raise ContextError(f"the content of {display(entry.path)} is not at hand")

    def _put_symlink(self, entry: FileEntry) -> None:
        target = self._target(entry.path)
        if not entry.link or b"\0" in entry.link:
            raise self._problem(f"the symbolic link {display(entry.path)} has no valid target")
        try:
            self._root.symlink(target, entry.link)
        except FileExistsError:
            self._clear(target)
            self._root.symlink(target, entry.link)
        self._finish_node(target, entry)

    def _put_node(self, entry: FileEntry, kind: int) -> None:
        target = self._target(entry.path)
        if kind == stat.S_IFSOCK:
            self._note(f"the socket {display(entry.path)} was left out")
            return
        if kind == stat.S_IFCHR and entry.rdev == 0:
            # In a layer's directory this would be a whiteout, and so it is for everyone who mounts such an image.
            self._note(f"the character device {display(entry.path)} with number 0:0 counts as a deletion")
            self._remove(target)
            return
        if self._root.lstat(target) is not None:
            self._clear(target)
        if kind != stat.S_IFIFO and self._ownership.keeps_devices:
            os.close(self._root.create(target, 0o600))
            self._finish_node(target, entry)
            return
        try:
            self._root.mknod(target, entry.mode, entry.rdev if kind != stat.S_IFIFO else 0)
        except PermissionError:
            self._note(f"the device {display(entry.path)} can't be made without privileges and was left out")
            return
        self._finish_node(target, entry)

    def _finish_node(self, target: bytes, entry: FileEntry) -> None:
        owner = Owner(entry.mode, entry.uid, entry.gid, entry.rdev)
        self._ownership.set_(target, self._root.host(target), owner)
        if entry.xattrs:
            self._set_xattrs(entry, self._root.host(target))
        self._root.set_times(target, entry.mtime_ns)

    def _put_directory(self, entry: FileEntry) -> None:
        if not entry.path:
            target = b""
        else:
            target = self._target(entry.path)
            if target not in self._merged:
                self._make_directory(target)
        self._set_directory(target, entry)

    def _make_directory(self, target: bytes) -> None:
        """Make a directory where an entry wants one; one that is there stays."""
        found = self._root.lstat(target)
        shows = self._merged[target.rpartition(b"/")[0]] and self._lower.is_dir(target)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._merged[target] = shows and not is_opaque(self._root.host(target), self._userxattr)
            return
        if found is not None:
            self._clear(target)
        self._root.mkdir(target)
        self._merged[target] = shows
        if found is not None:
            # Whatever stood here had already replaced what lies below.
            self._make_opaque(target)

    def _set_directory(self, target: bytes, entry: FileEntry) -> None:
        host = self._root.host(target)
        self._ownership.set_(target, host, Owner(entry.mode, entry.uid, entry.gid, 0))
        if entry.xattrs:
            self._set_xattrs(entry, host)
        self._times[target] = entry.mtime_ns

    def _link(self, entry: FileEntry, existing: bytes) -> None:
        target = self._target(entry.path)
        source = self._target(existing)
        found = self._root.lstat(source)
        if found is None and self._merged[source.rpartition(b"/")[0]]:
            below = self._lower.lstat(source)
            if below is not None and not below.is_dir:
                # The link would leave the upper directory: the file is brought into it, as overlayfs does.
                self._add(below, None)
                found = self._root.lstat(source)
        if found is None or _is_whiteout(found):
            raise self._problem(f"{display(entry.path)} is a hard link to {display(existing)}, which does not exist")
        if stat.S_ISDIR(found.st_mode):
            raise self._problem(f"{display(entry.path)} is a hard link to the directory {display(existing)}")
        if source == target:
            return
        try:
            self._root.link(target, source)
        except FileExistsError:
            self._clear(target)
            self._root.link(target, source)
        self._ownership.set_(target, self._root.host(target), self._ownership.of(source, found))

    def _target(self, path: bytes) -> bytes:
        """Return where a path really is, once its parents are directories of the upper one."""
        parent, _, name = path.rpartition(b"/")
        if name in {b"", b".", b".."}:
            raise self._problem("the root directory can't be replaced, removed or linked")
        real = self._real.get(parent)
        if real is None:
            real = self._directory(parent)
        target = join(real, name)
        if len(target) > self._longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return target

    def _directory(self, path: bytes) -> bytes:
        """Return where a directory really is; what is missing of it is made."""
        real = self._real.get(path)
        if real is not None:
            return real
        pending = split(path)[::-1]
        done = b""
        links = 0
        while pending:
            part = pending.pop()
            if part == b"..":
                done = done.rpartition(b"/")[0]
                continue
            current = join(done, part)
            if len(current) > self._longest:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            link = None if current in self._merged else self._enter(current)
            if link is None:
                done = current
                continue
            links += 1
            if links > MAX_LINKS:
                raise self._problem(f"{display(path)} goes through more than {MAX_LINKS} symbolic links")
            if link.startswith(b"/"):
                done = b""
            pending.extend(reversed(split(link)))
        self._real[path] = done
        return done

    def _enter(self, path: bytes) -> bytes | None:
        """Make sure that a path is a directory of the upper one, or return the target of the link that it is."""
        found = self._root.lstat(path)
        if found is not None and stat.S_ISLNK(found.st_mode):
            return self._root.readlink(path)
        if found is not None and not stat.S_ISDIR(found.st_mode) and not _is_whiteout(found):
            raise self._problem(f"{display(path)} is not a directory and has entries below it")
        shows = found is None and self._merged[path.rpartition(b"/")[0]]
        below = self._lower.lstat(path) if shows else None
        if below is not None and below.is_symlink:
            return below.link
        if below is not None and not below.is_dir:
            raise self._problem(f"{display(path)} is not a directory and has entries below it")
        self._make_directory(path)
        if below is not None:
            self._set_directory(path, below)
        elif found is None or not stat.S_ISDIR(found.st_mode):
            self._ownership.set_(path, self._root.host(path), _NEW_DIRECTORY)
        return None

    def _remove(self, target: bytes) -> None:
        found = self._root.lstat(target)
        if found is not None:
            if _is_whiteout(found):
                return
            self._clear(target)
        if self._merged[target.rpartition(b"/")[0]] and self._lower.lstat(target, xattrs=False) is not None:
            self._root.mknod(target, stat.S_IFCHR)

    def _clear(self, target: bytes) -> None:
        """Remove what is at a path of the upper directory, and all that is remembered of it."""
        found = self._root.lstat(target)
        if found is None:
            return
        self._root.remove(target)
        self._ownership.forget(target)
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self._real = {b"": b""}
        if stat.S_ISDIR(found.st_mode):
            for known in _at_or_below(self._merged, target):
                del self._merged[known]
                self._times.pop(known, None)

    def _make_opaque(self, real: bytes) -> None:
        if not self._merged[real]:
            return
        if not real:
            self._hide_root()
            return
        os.setxattr(self._root.host(real), opaque_name(self._userxattr), b"y", follow_symlinks=False)
        for known in _at_or_below(self._merged, real):
            self._merged[known] = False

    def _hide_root(self) -> None:
        """Hide all that is below: overlayfs always merges the root, so that every name in it needs a mark."""
        for name in self._lower.listdir(b""):
            found = self._root.lstat(name)
            if found is None:
                self._root.mknod(name, stat.S_IFCHR)
            elif stat.S_ISDIR(found.st_mode):
                self._make_opaque(self._directory(name))

    def _set_xattrs(self, entry: FileEntry, host: int | bytes) -> None:
        for name, value in entry.xattrs:
            if not belongs_to_image(name):
                continue
            try:
                if isinstance(host, int):
                    os.setxattr(host, name, value)
                else:
                    os.setxattr(host, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                text = f"the attribute {display(name)} of {display(entry.path)} was left out: {error.strerror}"
                self._note(text)

    def _note(self, text: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def _failed(self, path: bytes, error: OSError) -> CastoffError:
        if error.errno in _BAD_NAME:
            return self._problem(f"{display(path)[:200]} can't be a path on this file system: {error.strerror}")
        hint = "free some space" if error.errno in _FULL else None
        return StoreError(f"can't write {display(path)} to the store: {error.strerror}", hint=hint)


def _at_or_below(known: Iterable[bytes], path: bytes) -> list[bytes]:
    inside = path + b"/"
    return [each for each in known if each == path or each.startswith(inside)]


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
