"""A tar archive as a build context: unpacked into a folder, whatever the names and links in it say."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from typing import TYPE_CHECKING

from castoff.errors import ContextError, InvalidImageError, PathEscapeError, StoreError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import resolve
from castoff.fs.rooted import RootedDirectory, write_all
from castoff.layer.decompression import HEAD, open_decompressed, sniff
from castoff.layer.tarfields import BLOCK, looks_like_tar
from castoff.layer.tarreader import TarLimits, TarReader

if TYPE_CHECKING:
    from castoff.layer.tarreader import Readable, TarContent, TarMember

LIMITS = TarLimits(entries=2_000_000, size=256 << 30)
"""What one context may hold."""
_SNIFFED = 1 << 16
_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)


class Peeked:
    """A stream whose beginning has been looked at, and which still has it."""

    def __init__(self, raw: Readable, size: int = _SNIFFED) -> None:
        """Read up to `size` bytes of `raw`."""
        head = b""
        while len(head) < size and (more := raw.read(size - len(head))):
            head += more
        self.head = head
        self._left = io.BytesIO(head)
        self._raw = raw

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; all that is left where `size` is negative."""
        if size < 0:
            parts = [self._left.read()]
            while block := self._raw.read(1 << 20):
                parts.append(block)
            return b"".join(parts)
        return self._left.read(size) or self._raw.read(size)

    @property
    def is_archive(self) -> bool:
        """Whether it is a tar archive, compressed or not, as far as its beginning tells."""
        if sniff(self.head[:HEAD]) == "none":
            return looks_like_tar(self.head[: 2 * BLOCK])
        with contextlib.suppress(InvalidImageError), open_decompressed(io.BytesIO(self.head)) as stream:
            return looks_like_tar(stream.read(2 * BLOCK))
        return False


def unpack_context(stream: Readable, folder: str, what: str, limits: TarLimits = LIMITS) -> None:
    """Unpack an archive, compressed in any usual way, into an empty folder.

    Nothing is written outside of the folder: parents are opened one from the other and never through a link. Owners
    are left out, since a build context has none; so are device nodes, which nobody but root could make, FIFOs and
    sockets. Of two entries for one path the later one counts. Neither atomic nor idempotent.

    Args:
        stream: the archive.
        folder: absolute host path of the folder.
        what: what messages call the archive.
        limits: bounds against archives that are made to fill a machine.

    Raises:
        InvalidImageError: it is damaged or goes beyond the limits, or a path in it leads through a link.
        StoreError: the folder can't be written.
    """
    try:
        with open_decompressed(stream) as plain, RootedDirectory(folder) as root:
            late: dict[bytes, int] = {}
            for member in TarReader(plain, limits):
                _unpack(root, member, late)
            for path in sorted(late, reverse=True):
                _finish_folder(root, path, late[path])
    except InvalidImageError as error:
        raise InvalidImageError(f"{what} can't be unpacked: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise StoreError(f"{what} can't be unpacked to {folder}: {error.strerror}") from error


def _unpack(root: RootedDirectory, member: TarMember, late: dict[bytes, int]) -> None:
    entry = member.entry
    path, mode = entry.path, entry.permissions
    if not path:
        return
    try:
        usable = _make_parents(root, entry.parent)
    except OSError as error:
        if error.errno not in _NOT_A_FOLDER:
            raise
        usable = False
    if not usable:
        raise InvalidImageError(f"{display(path)} in it leads through a link or a file")
    there = root.lstat(path)
    if entry.is_dir:
        if there is None or not stat.S_ISDIR(there.st_mode):
            root.remove(path)
            root.mkdir(path, 0o700)
        late[path] = mode
        return
    if there is not None:
        if stat.S_ISDIR(there.st_mode):
            late.pop(path, None)
        root.remove(path)
    if entry.hardlink is not None:
        _link(root, entry, entry.hardlink)
    elif entry.is_symlink:
        root.symlink(path, entry.link)
        root.set_times(path, entry.mtime_ns)
    elif entry.is_file:
        _write(root, entry, member.content)


def _make_parents(root: RootedDirectory, folder: bytes) -> bool:
    """Make a folder and what is missing above it; return False where a part of the path is something else.

    Raises:
        OSError: as `RootedDirectory` does.
    """
    missing: list[bytes] = []
    while folder:
        status = root.lstat(folder)
        if status is not None:
            if not stat.S_ISDIR(status.st_mode):
                return False
            break
        missing.append(folder)
        folder = folder.rpartition(b"/")[0]
    for path in reversed(missing):
        root.mkdir(path, 0o755)
    return True


def _link(root: RootedDirectory, entry: FileEntry, target: bytes) -> None:
    status = None
    with contextlib.suppress(NotADirectoryError):
        status = root.lstat(target)
    if status is None or not stat.S_ISREG(status.st_mode):
        raise InvalidImageError(f"the hard link {display(entry.path)} leads to no file that came before it")
    root.link(entry.path, target)


def _write(root: RootedDirectory, entry: FileEntry, content: TarContent) -> None:
    descriptor = root.create(entry.path, 0o600)
    try:
        for block in content:
            write_all(descriptor, block)
        # Set-user-id bits are content: a COPY takes them along.
        os.fchmod(descriptor, entry.permissions)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
    finally:
        os.close(descriptor)


def _finish_folder(root: RootedDirectory, path: bytes, mode: int) -> None:
    descriptor = root.open_directory(path)
    # What the owner can't read could not be copied; root could, and the owner of an archive's content is root.
    os.fchmod(descriptor, mode | 0o500)


def read_inside(folder: str, path: str, limit: int) -> bytes | None:
    """Return the content of a file of a folder that others filled; None where there is none.

    Links are followed within the folder only: an absolute one counts from it.

    Raises:
        PathEscapeError: the path itself leads out of the folder.
        ContextError: it is no regular file, can't be read, or has more than `limit` bytes.
    """
    if ".." in path.split("/"):
        raise PathEscapeError(f"{path} leads out of the build context", hint="name a file in it")
    with RootedDirectory(folder) as root:

        def look(here: bytes) -> FileEntry | None:
            try:
                status = root.lstat(here)
            except OSError:
                return None
            if status is None:
                return None
            link = root.readlink(here) if stat.S_ISLNK(status.st_mode) else b""
            return FileEntry(here, status.st_mode, link=link)

        where = resolve(look, os.fsencode(path))
        parent, _, name = where.rpartition(b"/")
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name or b".", flags, dir_fd=root.open_directory(parent))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ContextError(f"{path} of the build context can't be read: {error.strerror}") from error
        return _read_regular(descriptor, path, limit)


def _read_regular(descriptor: int, path: str, limit: int) -> bytes:
    """Read a file to its end and close it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ContextError(f"{path} of the build context is not a regular file")
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ContextError(f"{path} of the build context has more than {limit >> 20} MiB")
    return data
