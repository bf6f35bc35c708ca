"""Who owns what in a snapshot.

With real privileges (or a range of subordinate ids) the file system itself knows. With a single uid it can't, and a
table beside the snapshot does. Everything that reads or writes files of snapshots goes through this protocol, so that
layers are the same either way.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Protocol

from castoff.errors import SyscallError
from castoff.fs.entry import display


class Owner(NamedTuple):
    """What an image says of an inode and the host may be unable to hold."""

    mode: int
    uid: int
    gid: int
    rdev: int


class Ownership(Protocol):
    """Owner, mode and device numbers of the files of one snapshot directory. Not thread-safe for one snapshot."""

    @property
    def keeps_devices(self) -> bool:
        """Whether an empty file stands for a device, whose type and number `set_` keeps."""

    def of(self, path: bytes, status: os.stat_result) -> Owner:
        """Return what the image sees for `path`, whose inode on the host has `status`. Idempotent."""

    def set_(self, path: bytes, host: int | bytes, owner: Owner) -> None:
        """Give an existing inode its owner and permission bits, in that order so that setuid bits survive.

        Idempotent, not atomic.

        Args:
            path: where it is in the snapshot.
            host: an open descriptor of it, or its host path (not followed if a symbolic link).
            owner: what the image shall see.

        Raises:
            SyscallError: the host refuses, such as an id outside the range of subordinate ids.
        """

    def forget(self, path: bytes) -> None:
        """Drop what is known of `path` and everything below it. Idempotent."""

    def flush(self) -> None:
        """Write what is held in memory. Atomic, idempotent."""


class DirectOwnership:
    """The file system is the truth: real root, or a user namespace with a range of subordinate ids."""

    __slots__ = ()

    @property
    def keeps_devices(self) -> bool:
        """Whether an empty file stands for a device: never, an inode is what it says."""
        return False

    def of(self, path: bytes, status: os.stat_result) -> Owner:  # noqa: ARG002 - the protocol's signature
        """Return what the inode itself says."""
        return Owner(status.st_mode, status.st_uid, status.st_gid, status.st_rdev)

    def set_(self, path: bytes, host: int | bytes, owner: Owner) -> None:
        """Change owner and permission bits of an inode where they differ.

        Raises:
            SyscallError: the host refuses.
        """
        try:
            status = os.fstat(host) if isinstance(host, int) else os.lstat(host)
            mode = status.st_mode
            if status.st_uid != owner.uid or status.st_gid != owner.gid:
                if isinstance(host, int):
                    os.fchown(host, owner.uid, owner.gid)
                else:
                    os.lchown(host, owner.uid, owner.gid)
                # A change of owner takes setuid and setgid bits (and file capabilities) away.
                mode &= 0o171777
            wanted = owner.mode & 0o7777
            if mode & 0o7777 != wanted and not stat.S_ISLNK(mode):
                os.chmod(host, wanted)
        except OSError as error:
            raise SyscallError(
                f"can't give {display(path)} to {owner.uid}:{owner.gid} (mode {owner.mode & 0o7777:o}): "
                f"{error.strerror}",
                errno=error.errno or 0,
                hint="in a user namespace, ids must be within the range of /etc/subuid and /etc/subgid",
            ) from error

    def forget(self, path: bytes) -> None:
        """Do nothing: what an inode says goes with it."""

    def flush(self) -> None:
        """Do nothing: nothing is held in memory."""
