"""Calls that make, move and remove names: what a supervised user makes is its own, and what it may not is refused.

The kernel makes the file, after the supervisor has looked at the call; so nobody owns it for a moment. It is labelled
at the next call that is trapped, of whichever thread, or at the end. All calls that could move it away are trapped.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from castoff.linux.filestatus import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, LINKS, MODE
from castoff.sandbox.filecalls import RefusedError
from castoff.sandbox.supervision import FIRST, SEARCH, THREAD, WRITE, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.linux.filestatus import Status
    from castoff.sandbox.credentials import Identity
    from castoff.sandbox.supervision import Call, Handler, Scene

_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_MODE = 0o177777
_WRITES = os.O_WRONLY | os.O_RDWR
OPEN_FLAGS = os.O_CREAT | _WRITES
"""Opens with one of these flags are to be trapped."""


class _Birth:
    """A name that is about to be made."""

    __slots__ = ("folder", "gid", "name", "single", "thread", "uid")

    def __init__(self, thread: int, folder: int, name: bytes, owner: tuple[int, int], *, single: bool) -> None:
        self.thread = thread
        self.folder = folder
        self.name = name
        self.uid, self.gid = owner
        self.single = single


class NameCalls:
    """Answers calls that make, move and remove names."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._births: list[_Birth] = []

    def strict(self) -> dict[str, Handler]:
        """Return handlers whose failures are those of the calls."""
        return {
            "mknod": lambda call: self._mknod(call, AT_FDCWD, 0),
            "mknodat": lambda call: self._mknod(call, call[FIRST], 1),
        }

    def lenient(self) -> dict[str, Handler]:
        """Return handlers that leave it to the kernel to fail."""
        return {
            "open": lambda call: self._open(call, (AT_FDCWD, 0), call[FIRST + 1]),
            "openat": lambda call: self._open(call, (call[FIRST], 1), call[FIRST + 2]),
            "creat": lambda call: self._open(call, (AT_FDCWD, 0), os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
            "openat2": self._openat2,
            "mkdir": lambda call: self._make(call, AT_FDCWD, 0),
            "mkdirat": lambda call: self._make(call, call[FIRST], 1),
            "symlink": lambda call: self._make(call, AT_FDCWD, 1),
            "symlinkat": lambda call: self._make(call, call[FIRST + 1], 2),
            "link": lambda call: self._make(call, AT_FDCWD, 1, single=True),
            "linkat": lambda call: self._make(call, call[FIRST + 2], 3, single=True),
            "rename": lambda call: self._rename(call, (AT_FDCWD, 0), (AT_FDCWD, 1)),
            "renameat": lambda call: self._rename(call, (call[FIRST], 1), (call[FIRST + 2], 3)),
            "renameat2": lambda call: self._rename(call, (call[FIRST], 1), (call[FIRST + 2], 3)),
            "unlink": lambda call: self._unlink(call, AT_FDCWD, 0),
            "rmdir": lambda call: self._unlink(call, AT_FDCWD, 0),
            "unlinkat": lambda call: self._unlink(call, call[FIRST], 1),
        }

    def settle(self, thread: int) -> None:
        """Label what has been made since; a thread that makes another call has done its last one, or failed."""
        waiting = []
        for birth in self._births:
            if self._settled(birth) or birth.thread == thread:
                os.close(birth.folder)
            else:
                waiting.append(birth)
        self._births = waiting

    @property
    def is_waiting(self) -> bool:
        """Whether there may be something to label."""
        return bool(self._births)

    def _settled(self, birth: _Birth) -> bool:
        scene = self._scene
        try:
            descriptor = os.open(birth.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=birth.folder)
        except OSError:
            return False
        try:
            status = scene.reader.statx(descriptor, b"", AT_EMPTY_PATH)
            if status is not None and not scene.owners.is_known(status) and not (birth.single and status[LINKS] > 1):
                scene.owners.label(descriptor, status, (birth.uid, birth.gid, 0, 0))
        finally:
            os.close(descriptor)
        return True

    # --- what is made

    def _is_idle(self) -> bool:
        """Tell whether nothing can be made that is not root's."""
        return not self._scene.identities.any_ and not self._scene.owners.any_group_folders

    def _open(self, call: Call, where: tuple[int, int], flags: int) -> None:
        if self._is_idle():
            return
        scene = self._scene
        identity = scene.identities.of(call[THREAD])
        is_root = identity.uids[3] == 0
        if is_root and not flags & os.O_CREAT:
            return
        path = scene.tracee.path(call[THREAD], call[FIRST + where[1]])
        no_follow = flags & os.O_NOFOLLOW or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL
        try:
            place = scene.tracee.place(call[THREAD], where[0], path, AT_SYMLINK_NOFOLLOW if no_follow else 0)
            try:
                status = scene.reader.statx(place.directory, place.path, place.flags)
            finally:
                place.close()
        except FileNotFoundError:
            status = None
        if status is None:
            if flags & os.O_CREAT:
                self._expect(call, where[0], path, identity)
        elif not is_root and flags & (_WRITES | os.O_TRUNC) and not scene.may(identity, status, WRITE):
            raise RefusedError(errno.EACCES)

    def _openat2(self, call: Call) -> None:
        if self._is_idle() or call[FIRST + 3] < 24:
            return
        flags, _mode, resolve = struct.unpack("=3Q", self._scene.tracee.read(call[THREAD], call[FIRST + 2], 24))
        if not resolve and flags & OPEN_FLAGS:
            self._open(call, (call[FIRST], 1), flags)

    def _make(self, call: Call, directory: int, position: int, *, single: bool = False) -> None:
        if self._is_idle():
            return
        identity = self._scene.identities.of(call[THREAD])
        path = self._scene.tracee.path(call[THREAD], call[FIRST + position])
        self._expect(call, directory, path, identity, single=single)

    def _expect(self, call: Call, directory: int, path: bytes, identity: Identity, *, single: bool = False) -> None:
        """Note a name that is about to be made, if its owner will not be root."""
        parent, name = _split(path)
        if name in (b"", b".", b".."):
            return
        folder = self._open_parent(call, directory, parent)
        try:
            owner = self._owner_in(folder, identity)
            if owner == (0, 0) or self._scene.reader.statx(folder, name, AT_SYMLINK_NOFOLLOW) is not None:
                return
            self._scene.check(call)
            self._births.append(_Birth(call[THREAD], folder, name, owner, single=single))
            folder = -1
        finally:
            if folder >= 0:
                os.close(folder)

    def _owner_in(self, folder: int, identity: Identity) -> tuple[int, int]:
        """Return whose something will be that an identity makes in an open directory.

        Raises:
            RefusedError: it may not make anything there.
        """
        scene = self._scene
        status = scene.reader.statx(folder, b"", AT_EMPTY_PATH)
        if status is None:
            raise failure(errno.ENOENT)
        if not scene.may(identity, status, WRITE | SEARCH):
            raise RefusedError(errno.EACCES)
        group = scene.owners.of(status)[1] if status[MODE] & stat.S_ISGID else identity.gids[3]
        return identity.uids[3], group

    def _open_parent(self, call: Call, directory: int, parent: bytes) -> int:
        flags = AT_EMPTY_PATH if not parent else 0
        place = self._scene.tracee.place(call[THREAD], directory, parent, flags)
        try:
            return place.open_()
        finally:
            place.close()

    def _mknod(self, call: Call, directory: int, position: int) -> int | None:
        """Make an empty file in the place of a device; leave all else to the kernel."""
        mode = call[FIRST + position + 1] & _MODE
        kind, device = stat.S_IFMT(mode), call[FIRST + position + 2] & 0xFFFFFFFF
        scene = self._scene
        identity = scene.identities.of(call[THREAD])
        path = scene.tracee.path(call[THREAD], call[FIRST + position])
        if kind not in _DEVICES:
            if not self._is_idle():
                self._expect(call, directory, path, identity)
            return None
        if not identity.is_privileged or (kind == stat.S_IFCHR and not device):
            raise failure(errno.EPERM)
        parent, name = _split(path)
        if not name or name in (b".", b".."):
            raise failure(errno.EEXIST if path else errno.ENOENT)
        umask = int(scene.tracee.field(call[THREAD], b"Umask"), 8)
        folder = self._open_parent(call, directory, parent)
        try:
            owner = self._owner_in(folder, identity)
            scene.check(call)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                os.fchmod(made, mode & 0o7777 & ~umask)
                status = scene.reader.statx(made, b"", AT_EMPTY_PATH)
                if status is not None:
                    scene.owners.label(made, status, (*owner, kind, device))
            finally:
                os.close(made)
        finally:
            os.close(folder)
        return 0

    # --- what is moved and removed

    def _rename(self, call: Call, old: tuple[int, int], new: tuple[int, int]) -> None:
        self._check_removal(call, *old)
        self._check_removal(call, *new)

    def _unlink(self, call: Call, directory: int, position: int) -> None:
        self._check_removal(call, directory, position)

    def _check_removal(self, call: Call, directory: int, position: int) -> None:
        """Refuse to remove or replace a name in a directory that is not the user's to change."""
        scene = self._scene
        if not scene.identities.any_:
            return
        identity = scene.identities.of(call[THREAD])
        if identity.uids[3] == 0:
            return
        parent, name = _split(scene.tracee.path(call[THREAD], call[FIRST + position]))
        folder = self._open_parent(call, directory, parent)
        try:
            status = scene.reader.statx(folder, b"", AT_EMPTY_PATH)
            found = scene.reader.statx(folder, name, AT_SYMLINK_NOFOLLOW)
        finally:
            os.close(folder)
        if status is None:
            return
        if not scene.may(identity, status, WRITE | SEARCH):
            raise RefusedError(errno.EACCES)
        if found is not None and status[MODE] & stat.S_ISVTX and not self._is_own(identity, status, found):
            raise RefusedError(errno.EPERM)

    def _is_own(self, identity: Identity, folder: Status, found: Status) -> bool:
        """Tell whether a name in a sticky directory is the user's to remove."""
        owners = self._scene.owners
        return identity.uids[3] in (owners.of(folder)[0], owners.of(found)[0])


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return the path of the directory that a name is in ("" for the starting one), and the name."""
    path = path.rstrip(b"/") or path[:1]
    parent, slash, name = path.rpartition(b"/")
    return parent or slash, name
