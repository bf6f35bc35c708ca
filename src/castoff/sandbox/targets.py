"""Mount points that an image lacks: made for as long as a sandbox lives, and never part of a layer.

Mostly there is nothing to make: the fork server puts a folder of stubs below all lower directories of the overlay, and
missing mount points come from there. Where the image hides them (a symlink leads elsewhere, a whiteout covers them),
they are created in the union, which puts them in the upper directory, and are removed from it when the sandbox ends.

Imports little: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import errno
import os
import stat

from castoff.linux import syscalls

_CONFINED = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_MAX_LINKS = 40

# (path relative to the root, inode, whether it is a folder, whether it took the place of a whiteout)
Made = tuple[str, int, bool, bool]
# (path relative to the root, change time in ns): a folder that was copied to the upper only to take a mount point
Copied = tuple[str, int]


class TargetMaker:
    """Creates missing mount points in a new root, and remembers them. Lives in the sandbox' child."""

    def __init__(self, upper: str) -> None:
        """Take the upper directory of the root as the host sees it; it must still be reachable now."""
        self._upper = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._made: list[Made] = []
        self._copied: list[str] = []

    def close(self) -> None:
        """Let go of the upper directory; nothing can be made any more."""
        os.close(self._upper)

    def ensure(self, target: str | bytes, is_folder: bool) -> None:
        """Make sure that a mount point exists in the current root.

        Raises:
            OSError: it can't be made, or something of another type is in its place.
        """
        try:
            found = os.stat(target)
        except FileNotFoundError:
            self._make(os.fsdecode(target), is_folder, 0)
            return
        if stat.S_ISDIR(found.st_mode) != is_folder:
            code = errno.ENOTDIR if is_folder else errno.EISDIR
            raise OSError(code, os.strerror(code), os.fsdecode(target))

    def _make(self, path: str, is_folder: bool, links: int) -> None:
        """Create a path and its parents; where a dangling symlink is in the way, what it points to."""
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        path = path.rstrip("/") or "/"
        parent, name = os.path.split(path)
        if not os.path.isdir(parent):
            self._make(parent, True, links)
        if os.path.islink(path):
            self._make(os.path.join(parent, os.readlink(path)), is_folder, links + 1)
            return
        parent = os.path.realpath(parent)
        relative = os.path.join(parent, name).lstrip("/")
        replaced = self._in_upper(relative)
        self._note_copies(parent.lstrip("/"))
        path = os.path.join(parent, name)
        try:
            if is_folder:
                os.mkdir(path, 0o755)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            # It is in a cache that another step mounts at this moment, and that step made it first.
            self.ensure(path, is_folder)
            return
        made = self._in_upper(relative)
        if made is not None:  # else it is in another mount, of which the sandbox was given the writing
            was_whiteout = replaced is not None and stat.S_ISCHR(replaced.st_mode)
            self._made.append((relative, made.st_ino, is_folder, was_whiteout))

    def _in_upper(self, relative: str) -> os.stat_result | None:
        try:
            descriptor = syscalls.openat2(self._upper, relative or ".", os.O_PATH | os.O_NOFOLLOW, 0, _CONFINED)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                return None
            raise
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _note_copies(self, folder: str) -> None:
        """Note the folders above a new mount point that the union is about to copy to the upper."""
        while folder and self._in_upper(folder) is None:
            if folder not in self._copied:
                self._copied.append(folder)
            folder = os.path.dirname(folder)

    def record(self) -> tuple[list[Made], list[Copied]] | None:
        """Return what `unmake` needs, once all is made; None where nothing was."""
        if not self._made:
            return None
        made_folders = {path for path, _, is_folder, _ in self._made if is_folder}
        copied: list[Copied] = []
        for folder in self._copied:
            status = self._in_upper(folder)
            if status is not None and folder not in made_folders:
                copied.append((folder, status.st_ctime_ns))
        return self._made, copied


def unmake(upper: str, made: list[Made], copied: list[Copied]) -> None:
    """Remove from an upper directory the mount points that were made in it, unless the sandbox put something there.

    The sandbox is gone and its root not mounted any more; what it left in the upper is not trusted, no symlink in it
    is followed. Errors leave a mount point where it is.
    """
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        untouched = [folder for folder, changed in copied if _change_time(root, folder) == changed]
        for path, inode, is_folder, was_whiteout in reversed(made):
            _remove(root, path, (inode, is_folder, was_whiteout))
        for folder in sorted(untouched, key=len, reverse=True):
            _remove(root, folder, (0, True, False))
    finally:
        os.close(root)


def _change_time(root: int, path: str) -> int | None:
    try:
        descriptor = syscalls.openat2(root, path, os.O_PATH | os.O_DIRECTORY, 0, _CONFINED)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_ctime_ns
    finally:
        os.close(descriptor)


def _remove(root: int, path: str, what: tuple[int, bool, bool]) -> None:
    inode, is_folder, was_whiteout = what
    parent, name = os.path.split(path)
    try:
        folder = syscalls.openat2(root, parent or ".", os.O_PATH | os.O_DIRECTORY, 0, _CONFINED)
    except OSError:
        return
    try:
        if is_folder:
            os.rmdir(name, dir_fd=folder)
        else:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if status.st_ino != inode or status.st_size or not stat.S_ISREG(status.st_mode):
                return
            os.unlink(name, dir_fd=folder)
        if was_whiteout:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)
    except OSError:
        # It was removed by the sandbox, or is in use by it: then it is the sandbox' own.
        return
    finally:
        os.close(folder)
