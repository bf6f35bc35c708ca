"""Puts into a copied root what would be mounted elsewhere, and takes it out again when the process has ended.

What stands where something is put is moved aside for as long. The root is not trusted, before as after the process:
every path is opened confined to it, and what is taken out is moved away without being looked into.

Imports little: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import errno
import os
import stat

from castoff.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_RESOLV_CONF = "/etc/resolv.conf"
_MAX_RESOLV_CONF = 64 << 10


class PlainRoot:
    """The root of one process.

    Attributes:
        step: what is being done, for a message should it fail.
    """

    def __init__(self, request: dict[str, Any], folder: str) -> None:
        """Take a request of `castoff.sandbox.wire`, and an empty folder on the root's file system.

        Raises:
            OSError: one of them can't be opened.
        """
        self.step = "open the root"
        self._request = request
        self._root = os.open(request["upper"], _FOLDER | os.O_NOFOLLOW)
        self._aside = os.open(folder, _FOLDER | os.O_NOFOLLOW)
        self._count = 0
        # What `restore` does, last first: (parent, name, what was there and is aside, where a moved source goes back).
        self._placed: list[tuple[int, bytes, bytes, bytes, int]] = []
        self._made: list[tuple[int, bytes]] = []

    def prepare(self) -> None:
        """Put everything into the root.

        Raises:
            OSError: it can't be done; `step` says what.
        """
        request = self._request
        self._place_devices()
        files = {
            b"/etc/resolv.conf": _read(_RESOLV_CONF),
            b"/etc/hosts": request["hosts"],
            b"/etc/hostname": os.fsencode(os.uname().nodename) + b"\n",
        }
        for path, content in files.items():
            self._place_file(path, content, 0o644, (0, 0))
        for kind, target, source, _, _, mode, more in request["mounts"]:
            if kind == "file":
                content, uid, gid = more
                self._place_file(target, content, 0o444 if mode is None else mode, (uid, gid))
            elif kind == "tmpfs":
                self._place_folder(target, 0o1777 if mode is None else mode)
            else:
                self._place_source(target, source)

    def restore(self) -> None:
        """Take out what was put in, and put back what was there. What can't be is left as it is."""
        for parent, name, hidden, source, inode in reversed(self._placed):
            try:
                self._take_out(parent, name, source, inode)
                if hidden:
                    os.rename(hidden, name, src_dir_fd=self._aside, dst_dir_fd=parent)
            except OSError:
                continue
        for parent, name in reversed(self._made):
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError:
                continue

    def enter(self) -> None:
        """Change the root of the calling process to it."""
        os.fchdir(self._root)
        os.chroot(".")

    def _take_out(self, parent: int, name: bytes, source: bytes, inode: int) -> None:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if source and found.st_ino == inode:
            os.rename(name, source, src_dir_fd=parent)
        else:
            os.rename(name, self._new_name(), src_dir_fd=parent, dst_dir_fd=self._aside)

    def _place_devices(self) -> None:
        parent, name = self._place(b"/dev")
        self.step = "make /dev"
        os.mkdir(name, 0o755, dir_fd=parent)
        self._note(parent, name)
        folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            for device, major, minor in _DEVICES:
                self.step = f"make /dev/{device}"
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=folder)
                os.chmod(device, 0o666, dir_fd=folder)  # noqa: S103 - as everywhere
            for sub, mode in (("shm", 0o1777), ("pts", 0o755)):
                os.mkdir(sub, mode, dir_fd=folder)
                os.chmod(sub, mode, dir_fd=folder)
            os.symlink("/proc/self/fd", "fd", dir_fd=folder)
        finally:
            os.close(folder)

    def _place_file(self, target: bytes, content: bytes, mode: int, owner: tuple[int, int]) -> None:
        parent, name = self._place(target)
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
        self._note(parent, name)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _place_folder(self, target: bytes, mode: int) -> None:
        parent, name = self._place(target)
        os.mkdir(name, 0o700, dir_fd=parent)
        self._note(parent, name)
        os.chmod(name, mode, dir_fd=parent)

    def _place_source(self, target: bytes, source: bytes) -> None:
        """Move a folder or file of the store into the root, for as long as the process runs."""
        parent, name = self._place(target)
        self.step = f"move {os.fsdecode(source)} to {os.fsdecode(target)}"
        inode = os.lstat(source).st_ino
        os.rename(source, name, dst_dir_fd=parent)
        self._placed[-1] = (*self._placed[-1][:3], source, inode)

    def _note(self, parent: int, name: bytes) -> None:
        inode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino
        self._placed[-1] = (*self._placed[-1][:4], inode)

    def _place(self, target: bytes) -> tuple[int, bytes]:
        """Free a path of the root, its parents made where they are missing, and return its parent and its name."""
        self.step = f"make room for {os.fsdecode(target)}"
        parent, name = self._find(target)
        hidden = b""
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            hidden = self._new_name()
            os.rename(name, hidden, src_dir_fd=parent, dst_dir_fd=self._aside)
        except FileNotFoundError:
            hidden = b""
        self._placed.append((parent, name, hidden, b"", 0))
        return parent, name

    def _find(self, target: bytes) -> tuple[int, bytes]:
        """Return where a path leads within the root, links at its end followed, as (parent, name)."""
        path = target
        for _ in range(_MAX_LINKS):
            folder, _, name = path.rstrip(b"/").rpartition(b"/")
            parent = self._open(folder)
            try:
                link = os.readlink(name, dir_fd=parent)
            except FileNotFoundError:
                return parent, name
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return parent, name
            path = link if link.startswith(b"/") else folder + b"/" + link
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(target))

    def _open(self, path: bytes) -> int:
        """Open a folder of the root by its path, and make what is missing of it."""
        try:
            return syscalls.openat2(self._root, path.strip(b"/") or b".", _FOLDER, 0, syscalls.RESOLVE_IN_ROOT)
        except FileNotFoundError:
            folder, _, name = path.rstrip(b"/").rpartition(b"/")
            parent = self._open(folder)
            os.mkdir(name, 0o755, dir_fd=parent)
            self._made.append((parent, name))
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)

    def _new_name(self) -> bytes:
        self._count += 1
        return b"%d" % self._count


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_RESOLV_CONF)
    except OSError:
        return b""
