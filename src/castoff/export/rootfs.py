"""The files of an image without the image: ``type=local``, a folder, and ``type=tar``, a stream."""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from castoff.errors import ExportError
from castoff.export.bundle import SENDING, Progress
from castoff.export.exporter import ExportReport
from castoff.export.placement import failing_as_export, new_file, placed_file, placed_folder, sweep_files
from castoff.export.transfer import write_all
from castoff.fs.changes import Added, diff
from castoff.fs.entry import FileEntry, display
from castoff.fs.rooted import RootedDirectory, copy_bytes
from castoff.fs.union import UnionTree
from castoff.layer.tarstream import TarStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from castoff.events import Observer

COPYING = "copying files"
_MAX_SKIPPED = 100
_OWNER_ALL = 0o700


def export_tar(
    tree: UnionTree,
    dest: str,
    observer: Observer,
    vertex: str = "",
    *,
    epoch: int | None = None,
    stdout: BinaryIO | None = None,
) -> ExportReport:
    """Write a tree as a tar stream. Atomic: the destination is replaced whole, or stays as it was.

    Args:
        tree: the merged file system.
        dest: the path of a file, or ``-`` for `stdout`.
        observer: told of the bytes written.
        vertex: the vertex that these belong to.
        epoch: seconds since 1970 to which later times are taken back; None keeps them.
        stdout: standard output.

    Raises:
        ExportError: the destination can't be written.
        ContextError: a file of the tree can't be read.
    """
    progress = Progress(observer, vertex, SENDING, 0)
    with placed_file(dest, stdout) as fd, failing_as_export(f"write {dest}"):
        for chunk in TarStream(epoch=epoch).chunks(diff(UnionTree(), tree)):
            progress.add(write_all(fd, chunk))
    progress.finish()
    return ExportReport(dest, None, progress.done)


def export_folder(tree: UnionTree, dest: str, observer: Observer, vertex: str = "") -> ExportReport:
    """Write a tree into a folder, on top of what is there already.

    Files belong to whoever runs this, as with docker buildx; modes and times are kept. A file replaces one of the same
    name, a folder joins one, and a symbolic link that is in the way is replaced, never followed. A new folder appears
    whole. Device nodes that may not be made are left out and reported.

    Args:
        tree: the merged file system.
        dest: the folder, made with its parents where it is missing.
        observer: told of the bytes written.
        vertex: the vertex that these belong to.

    Raises:
        ExportError: the destination can't be written, or is a file.
        ContextError: a file of the tree can't be read.
    """
    progress = Progress(observer, vertex, COPYING, 0)
    with failing_as_export(f"write the folder {dest}"):
        path = os.path.realpath(dest)
        try:
            fresh = not stat.S_ISDIR(os.stat(path).st_mode)
            if fresh:
                raise ExportError(f"can't write the folder {dest}: it is a file", hint="name a folder with dest=")
        except FileNotFoundError:
            fresh = True
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with placed_folder(path) if fresh else nullcontext(path) as target, RootedDirectory(target) as root:
            writer = _FolderWriter(root, progress, fresh)
            writer.write(tree)
    progress.finish()
    return ExportReport(dest, None, progress.done, tuple(writer.skipped))


class _FolderWriter:
    """Writes entries below a folder of the host."""

    def __init__(self, root: RootedDirectory, progress: Progress, fresh: bool) -> None:
        self._root = root
        # Nothing is in the way in a new folder, and nobody sees it before it is whole.
        self._fresh = fresh
        self._progress = progress
        self._folders: list[FileEntry] = []
        self.skipped: list[str] = []

    def write(self, tree: UnionTree) -> None:
        """Write all of a tree. Modes and times of folders come last, since they may forbid writing in them."""
        self._sweep(b"")
        for entry in _entries(tree):
            try:
                self._put(entry)
            except OSError as error:
                if error.filename is None or isinstance(error.filename, int):
                    error.filename = display(entry.path)
                raise
        for entry in reversed(self._folders):
            self._root.set_times(entry.path, entry.mtime_ns)
            os.fchmod(self._root.open_directory(entry.path), entry.permissions)
            self._root.forget(entry.path)

    def _put(self, entry: FileEntry) -> None:
        if entry.hardlink is not None:
            self._clear(entry.path)
            self._root.link(entry.path, entry.hardlink)
        elif entry.is_dir:
            self._put_folder(entry)
        elif entry.is_file:
            self._put_file(entry)
        elif entry.is_symlink:
            self._clear(entry.path)
            self._root.symlink(entry.path, entry.link)
            self._root.set_times(entry.path, entry.mtime_ns)
        else:
            self._put_node(entry)

    def _clear(self, path: bytes) -> None:
        if not self._fresh:
            self._root.remove(path)

    def _put_folder(self, entry: FileEntry) -> None:
        status = None if self._fresh else self._root.lstat(entry.path)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            self._root.remove(entry.path)
            status = None
        if status is None:
            self._root.mkdir(entry.path, _OWNER_ALL)
        elif status.st_mode & _OWNER_ALL != _OWNER_ALL:
            parent, _, name = entry.path.rpartition(b"/")
            # The entry was just seen to be a folder: should it be swapped for a link now, opening it fails below.
            os.chmod(name, stat.S_IMODE(status.st_mode) | _OWNER_ALL, dir_fd=self._root.open_directory(parent))
        self._root.open_directory(entry.path)
        if status is not None:
            self._sweep(entry.path)
        self._folders.append(entry)

    def _sweep(self, path: bytes) -> None:
        if not self._fresh:
            sweep_files(self._root.open_directory(path))

    def _put_file(self, entry: FileEntry) -> None:
        parent, _, name = entry.path.rpartition(b"/")
        if self._fresh:
            self._create(entry.path, entry)
            return
        status = self._root.lstat(entry.path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            self._root.remove(entry.path)
        folder = self._root.open_directory(parent)
        fd, temporary = new_file(name, 0o600, folder)
        try:
            self._fill(fd, entry)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        finally:
            os.close(fd)

    def _create(self, place: bytes, entry: FileEntry) -> None:
        fd = self._root.create(place, 0o600)
        try:
            self._fill(fd, entry)
        finally:
            os.close(fd)

    def _fill(self, fd: int, entry: FileEntry) -> None:
        if entry.data is not None:
            write_all(fd, entry.data)
        elif entry.size:
            with UnionTree().open_(entry) as source:
                if copy_bytes(source.fileno(), fd, entry.size) != entry.size:
                    raise ExportError(f"{display(entry.path)} became shorter while it was being read")
        for key, value in entry.xattrs:
            try:
                os.setxattr(fd, key, value)
            except OSError:
                self._skip(f"the attribute {display(key)} of {display(entry.path)}")
        os.fchmod(fd, entry.permissions)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        self._progress.add(entry.size)

    def _put_node(self, entry: FileEntry) -> None:
        self._clear(entry.path)
        try:
            self._root.mknod(entry.path, stat.S_IFMT(entry.mode) | stat.S_IRUSR | stat.S_IWUSR, entry.rdev)
        except PermissionError:
            self._skip(f"the device node {display(entry.path)}")
            return
        parent, _, name = entry.path.rpartition(b"/")
        # Just made by this process and no link; chmod has no way not to follow one.
        os.chmod(name, entry.permissions, dir_fd=self._root.open_directory(parent))
        self._root.set_times(entry.path, entry.mtime_ns)

    def _skip(self, what: str) -> None:
        if len(self.skipped) < _MAX_SKIPPED:
            self.skipped.append(what)


def _entries(tree: UnionTree) -> Iterator[FileEntry]:
    """Yield the entries of a tree, later hard links marked as such; the root itself is left out."""
    for change in diff(UnionTree(), tree):
        if isinstance(change, Added) and change.entry.path:
            yield change.entry
