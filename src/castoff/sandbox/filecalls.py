"""Answers to calls that ask and change who owns a file, and to exec of set-user-ID programs. Imports little."""

from __future__ import annotations

import errno
import os
import stat

from castoff.linux.filestatus import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, LINKS, MODE
from castoff.sandbox import credentials
from castoff.sandbox.credentials import KEEP
from castoff.sandbox.supervision import FIRST, THREAD, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.fs.ownertable import Owned
    from castoff.linux.filestatus import Status
    from castoff.sandbox.credentials import Identity
    from castoff.sandbox.supervision import Call, Handler, Scene
    from castoff.sandbox.tracee import Place

_AT_EACCESS = 0x200
_AT_STATX_SYNC_TYPE = 0x6000
_SET_ID = stat.S_ISUID | stat.S_ISGID


class FileCalls:
    """Answers calls about files that are there."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def strict(self) -> dict[str, Handler]:
        """Return handlers whose failures are those of the calls."""
        return {
            "chown": lambda call: self._chown_path(call, 0),
            "lchown": lambda call: self._chown_path(call, AT_SYMLINK_NOFOLLOW),
            "fchown": self._fchown,
            "fchownat": self._fchownat,
        }

    def lenient(self) -> dict[str, Handler]:
        """Return handlers that leave it to the kernel to fail."""
        return {
            "stat": lambda call: self._stat_path(call, 0),
            "lstat": lambda call: self._stat_path(call, AT_SYMLINK_NOFOLLOW),
            "fstat": self._fstat,
            "newfstatat": self._fstatat,
            "statx": self._statx,
            "access": lambda call: self._access(call, (AT_FDCWD, 0), 0),
            "faccessat": lambda call: self._access(call, (call[FIRST], 1), 0),
            "faccessat2": lambda call: self._access(call, (call[FIRST], 1), call[FIRST + 3]),
            "execve": lambda call: self._execute(call, (AT_FDCWD, 0), 0),
            "execveat": lambda call: self._execute(call, (call[FIRST], 1), call[FIRST + 4]),
            "chroot": self._chroot,
        }

    def _place(self, call: Call, directory: int, address: int, flags: int) -> Place:
        thread = call[THREAD]
        path = self._scene.tracee.path(thread, address) if address else b""
        return self._scene.tracee.place(thread, directory, path, flags)

    # --- chown

    def _chown_path(self, call: Call, flags: int) -> int:
        return self._chown(call, self._place(call, AT_FDCWD, call[FIRST], flags), call[FIRST + 1], call[FIRST + 2])

    def _fchown(self, call: Call) -> int:
        place = self._scene.tracee.place(call[THREAD], call[FIRST], b"", AT_EMPTY_PATH)
        return self._chown(call, place, call[FIRST + 1], call[FIRST + 2])

    def _fchownat(self, call: Call) -> int:
        if call[FIRST + 4] & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) & 0xFFFFFFFF:
            raise failure(errno.EINVAL)
        place = self._place(call, call[FIRST], call[FIRST + 1], call[FIRST + 4])
        return self._chown(call, place, call[FIRST + 2], call[FIRST + 3])

    def _chown(self, call: Call, place: Place, uid: int, gid: int) -> int:
        scene = self._scene
        try:
            descriptor = place.open_()
        except OSError as error:
            code = errno.EBADF if error.errno == errno.ENOENT and b"/fd/" in place.path else error.errno
            raise failure(code or errno.ENOENT) from error
        finally:
            place.close()
        try:
            before = scene.reader.statx(descriptor, b"", AT_EMPTY_PATH)
            if before is None:
                raise failure(errno.ENOENT)
            old = scene.owners.of(before)
            uid, gid = uid & KEEP, gid & KEEP
            if scene.identities.any_:
                _permit(scene.identities.of(call[THREAD]), old, uid, gid)
            scene.check(call)
            owned = (old[0] if uid == KEEP else uid, old[1] if gid == KEEP else gid, old[2], old[3])
            scene.owners.change(descriptor, before, owned)
        finally:
            os.close(descriptor)
        return 0

    # --- stat

    def _stat_path(self, call: Call, flags: int) -> int | None:
        return self._stat(call, self._place(call, AT_FDCWD, call[FIRST], flags), call[FIRST + 1])

    def _fstat(self, call: Call) -> int | None:
        place = self._scene.tracee.place(call[THREAD], call[FIRST], b"", AT_EMPTY_PATH)
        return self._stat(call, place, call[FIRST + 1])

    def _fstatat(self, call: Call) -> int | None:
        place = self._place(call, call[FIRST], call[FIRST + 1], call[FIRST + 3])
        return self._stat(call, place, call[FIRST + 2])

    def _stat(self, call: Call, place: Place, address: int) -> int | None:
        scene = self._scene
        try:
            status = scene.reader.statx(place.directory, place.path, place.flags)
            if status is None or not scene.owners.differs(status):
                return None
            uid, gid, *device = scene.owners.of(status)
            data = scene.reader.raw_stat(place.directory, place.path, place.flags)
        finally:
            place.close()
        scene.reader.patch_stat(data, uid, gid, (device[0], device[1]))
        scene.put(call, address, data)
        return 0

    def _statx(self, call: Call) -> int | None:
        scene = self._scene
        flags = call[FIRST + 2]
        place = self._place(call, call[FIRST], call[FIRST + 1], flags)
        try:
            status = scene.reader.statx(place.directory, place.path, place.flags)
            if status is None or not scene.owners.differs(status):
                return None
            uid, gid, *device = scene.owners.of(status)
            all_flags = place.flags | flags & _AT_STATX_SYNC_TYPE
            data = scene.reader.raw_statx(place.directory, place.path, all_flags, call[FIRST + 3] & 0xFFFFFFFF)
        finally:
            place.close()
        scene.reader.patch_statx(data, uid, gid, (device[0], device[1]))
        scene.put(call, call[FIRST + 4], data)
        return 0

    # --- access

    def _access(self, call: Call, where: tuple[int, int], flags: int) -> None:
        """Refuse what a user who is not root may not do; `where` is the directory and the position of the path."""
        scene = self._scene
        if not scene.identities.any_:
            return
        identity = scene.identities.of(call[THREAD])
        wanted = call[FIRST + where[1] + 1] & 7
        place = self._place(call, where[0], call[FIRST + where[1]], flags)
        try:
            status = scene.reader.statx(place.directory, place.path, place.flags)
        finally:
            place.close()
        if status is not None and not scene.may(identity, status, wanted, real=not flags & _AT_EACCESS):
            raise RefusedError(errno.EACCES)

    # --- execve

    def _execute(self, call: Call, where: tuple[int, int], flags: int) -> None:
        """Give a process the ids that it will have once the kernel executes its program."""
        scene = self._scene
        if not scene.identities.any_ and not scene.owners:
            return
        identity = scene.identities.of(call[THREAD])
        place = self._place(call, where[0], call[FIRST + where[1]], flags)
        try:
            status = scene.reader.statx(place.directory, place.path, place.flags)
            if status is None or not stat.S_ISREG(status[MODE]) or not status[MODE] & 0o111:
                return
            user, group = self._set_ids(status, place)
        finally:
            place.close()
        after = credentials.execute(identity, user, group)
        if after != identity:
            scene.check(call)
            scene.identities.set_(call[THREAD], after)

    def _set_ids(self, status: Status, place: Place) -> tuple[int | None, int | None]:
        """Return the ids that executing a file gives."""
        mode = status[MODE]
        if not mode & _SET_ID or not status[LINKS] or _is_script(place):
            return None, None
        uid, gid = self._scene.owners.of(status)[:2]
        has_group = mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
        return uid if mode & stat.S_ISUID else None, gid if has_group else None

    # --- chroot

    def _chroot(self, call: Call) -> None:
        """Let the kernel do it; from now on a path may mean something else to a thread than to the supervisor."""
        if self._scene.identities.any_ and not self._scene.identities.of(call[THREAD]).is_privileged:
            raise RefusedError(errno.EPERM)
        self._scene.tracee.foreign_roots = True


class RefusedError(OSError):
    """A failure that is a call's own even where other failures are left to the kernel."""

    def __init__(self, code: int) -> None:
        super().__init__(code, os.strerror(code))


def _permit(identity: Identity, old: Owned, uid: int, gid: int) -> None:
    """Refuse a change of owner that only root may do."""
    if identity.uids[3] == 0:
        return
    mine = identity.uids[3] == old[0]
    if not mine or uid not in (KEEP, old[0]) or not (gid in (KEEP, old[1]) or identity.in_group(gid)):
        raise failure(errno.EPERM)


def _is_script(place: Place) -> bool:
    directory = None if place.directory == AT_FDCWD else place.directory
    if not place.path:
        return False
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        return os.read(descriptor, 2) == b"#!"
    finally:
        os.close(descriptor)
