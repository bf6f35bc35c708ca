"""A file as a value: what castoff knows of one entry of a tree, an archive or a snapshot.

Paths are bytes, relative, without a leading slash and without "." or ".." parts; the root is ``b""``. Names are
whatever bytes the file system holds: text is made of them only for display.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One entry of a tree.

    Attributes:
        path: where it is in the tree.
        mode: type and permission bits, as in ``st_mode``.
        uid: owner, as the image sees it.
        gid: group, as the image sees it.
        size: bytes of a regular file; 0 for others.
        mtime_ns: modification time in nanoseconds since the epoch.
        link: target of a symbolic link, verbatim.
        rdev: device number of a device node, as ``os.makedev`` makes it.
        xattrs: sorted pairs of extended attributes that belong to the image (never overlay's or castoff's own).
        hardlink: path of an earlier entry of the same stream that this one is a hard link to; None otherwise.
        source: host path of the content of a regular file; None where `data` holds it, or where there is none.
        data: content of a regular file that is held in memory; None otherwise.
        inode: (device, inode) on the host where the file has further links; None otherwise.
        stamp: (device, inode, change time in nanoseconds) that the host file at `source` must have when it is read;
            None where nothing can change it.
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    hardlink: bytes | None = None
    source: bytes | None = None
    data: bytes | None = None
    inode: tuple[int, int] | None = None
    stamp: tuple[int, int, int] | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits, setuid, setgid and sticky included."""
        return self.mode & 0o7777

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def parent(self) -> bytes:
        """The path of the directory that it is in."""
        return self.path.rpartition(b"/")[0]

    def with_path(self, path: bytes) -> FileEntry:
        """Return a copy at another path."""
        return replace(self, path=path)


def display(path: bytes) -> str:
    """Return a path as text for messages: bytes that are no text, and control characters, escaped."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
