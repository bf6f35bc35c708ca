"""What is mounted into a sandbox, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class MountKind(Enum):
    """The mechanism of a mount."""

    BIND = "bind"
    TMPFS = "tmpfs"
    OVERLAY = "overlay"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount inside a sandbox.

    Attributes:
        kind: the mechanism.
        target: absolute path inside the sandbox; symlinks in it are followed within the sandbox's root only.
        source: BIND: absolute host path of a folder or a file. OVERLAY: the path within the merged tree that is
            mounted, "" for all of it; symlinks in it are followed within that tree only.
        readonly: whether writes fail with EROFS.
        size: limit of a tmpfs in bytes; None for the kernel's default.
        mode: permission bits of a tmpfs' root or of a FILE; None for 01777 and 0444.
        lowers: OVERLAY: host paths of its directories, topmost first.
        upper: OVERLAY: host path of the directory that takes writes; None for none.
        work: OVERLAY: overlayfs' work directory; None without an upper.
        data: FILE: its content, which is held in memory only (a tmpfs of the sandbox) and never on a disk, unless it
            is `public`.
        uid: owner of a FILE.
        gid: group of a FILE.
        table: BIND: host path of the table of who owns what in it (`castoff.fs.ownertable`), which need not exist; ""
            for none.
        public: FILE: whether its content is no secret, and may be on a disk where there can be no tmpfs.
    """

    kind: MountKind
    target: str
    source: str = ""
    readonly: bool = False
    size: int | None = None
    mode: int | None = None
    lowers: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None
    data: bytes = field(default=b"", repr=False)
    uid: int = 0
    gid: int = 0
    public: bool = False
    table: str = ""
