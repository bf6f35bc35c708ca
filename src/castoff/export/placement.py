"""Where exports go: beside their destination first, and into its place when they are whole.

What an export writes beside its destination is locked while it lives. What a killed one has left is not, and the next
export to the same place removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from castoff.errors import ExportError
from castoff.store.failure import explain
from castoff.store.locking import try_lock
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

STDOUT = "-"

_KEPT = 64
_TEMPORARY = re.compile(rb"(\..{0,64})\.castoff-[0-9a-f]{12}", re.DOTALL)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def failing_as_export(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into an ExportError.

    Raises:
        ExportError: what went wrong while `doing` something, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        message, hint = explain(error, doing)
        raise ExportError(message, hint=_without_store(hint)) from error


def _without_store(hint: str | None) -> str | None:
    return "free some space, or write to another place" if hint and "--root" in hint else hint


@contextmanager
def placed_file(dest: str, stdout: BinaryIO | None = None) -> Iterator[int]:
    """Yield a descriptor to write a file to, which takes the place of the destination when the block ends well.

    Pipes and devices that exist are written directly.

    Args:
        dest: the path of a file, or ``-`` for `stdout`.
        stdout: standard output; it is flushed first, and must have a descriptor.

    Raises:
        ExportError: the destination is a folder, or can't be written.
    """
    if dest == STDOUT:
        if stdout is None:
            raise ExportError("there is no standard output to write to", hint="name a file with dest=")
        with failing_as_export("write to standard output"):
            stdout.flush()
            yield stdout.fileno()
        return
    with failing_as_export(f"write {dest}"):
        path = os.path.realpath(dest)
        mode = _kind(path)
        if stat.S_ISDIR(mode):
            raise ExportError(
                f"can't write {dest}: it is a folder", hint="name a file, or say tar=false for an image layout folder"
            )
        if mode and not stat.S_ISREG(mode):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)
            return
        sweep(path)
        with _unnamed(path) as fd:
            yield fd


@contextmanager
def _unnamed(path: str) -> Iterator[int]:
    """Yield a descriptor of a new file that takes the place of a path when the block ends well.

    It has no name before that, where the file system can do so: whatever happens to this process, nothing is left.
    """
    temporary = ""
    try:
        fd = os.open(os.path.dirname(path), os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    except OSError:
        fd, temporary = new_file(path, 0o666)
    try:
        yield fd
        if not temporary:
            _lock(fd)  # from the moment on at which it has a name
            temporary = beside(path)
            # Giving a descriptor makes Python call linkat, which alone can name an open file; the path is absolute,
            # so that it is not used.
            os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
        os.rename(temporary, path)
    except BaseException:
        if temporary:
            remove_tree(temporary)
        raise
    finally:
        os.close(fd)


@contextmanager
def placed_folder(path: str) -> Iterator[str]:
    """Yield the path of a new folder that takes the place of another path when the block ends well.

    Args:
        path: absolute, links resolved; nothing is there, or an empty folder.

    Raises:
        OSError: it can't be made, or something has been put at `path` meanwhile.
    """
    sweep(path)
    fd, temporary = _new_folder(path)
    try:
        yield temporary
        os.rename(temporary, path)  # replaces an empty folder, and nothing else
    except BaseException:
        remove_tree(temporary)
        raise
    finally:
        os.close(fd)


def beside(path: str) -> str:
    """Return a new name in the folder of a path, on the same file system therefore."""
    folder, name = os.path.split(path)
    return os.path.join(folder, os.fsdecode(_prefix(name) + b".castoff-" + os.urandom(6).hex().encode()))


def _prefix(name: str) -> bytes:
    return b"." + os.fsencode(name)[:_KEPT]


def new_file(path: str | bytes, mode: int = 0o644, dir_fd: int | None = None) -> tuple[int, str]:
    """Make a file beside a path, locked while its descriptor is open, and return that and its path.

    Args:
        path: what it is to take the place of.
        mode: its permissions, before the umask.
        dir_fd: the folder that `path` is relative to.

    Raises:
        OSError: it can't be made.
    """
    while True:
        temporary = beside(os.fsdecode(path))
        fd = os.open(temporary, _NEW, mode, dir_fd=dir_fd)
        if _locked(fd, temporary, dir_fd):
            return fd, temporary


def _new_folder(path: str) -> tuple[int, str]:
    while True:
        temporary = beside(path)
        os.mkdir(temporary)
        try:
            fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _locked(fd, temporary, None):
            return fd, temporary


def _locked(fd: int, path: str, dir_fd: int | None) -> bool:
    """Lock what was just made; False, and closed, where a sweep took it for something left behind."""
    _lock(fd)
    try:
        if os.path.samestat(os.fstat(fd), os.stat(path, dir_fd=dir_fd, follow_symlinks=False)):
            return True
    except FileNotFoundError:
        pass
    os.close(fd)
    return False


def _lock(fd: int) -> None:
    with suppress(OSError):  # where the file system has no locks, nothing is ever swept either
        fcntl.flock(fd, fcntl.LOCK_EX)


def sweep(path: str) -> None:
    """Remove what killed exports to the same path have left beside it. Never fails.

    Only files and folders of castoff's own names are removed, that belong to this user and that nobody has locked.
    """
    folder, name = os.path.split(path)
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sweep(fd, _prefix(name), folder)
        finally:
            os.close(fd)


def sweep_files(folder: int) -> None:
    """Remove the files that killed exports have left in an open folder that they wrote into. Never fails."""
    with suppress(OSError):
        _sweep(folder, None, None)


def _sweep(fd: int, of: bytes | None, folder: str | None) -> None:
    for name in map(os.fsencode, os.listdir(fd)):
        match = _TEMPORARY.fullmatch(name)
        if match is None or of not in (None, match[1]):
            continue
        with suppress(OSError):
            found = os.open(name, _LOOK, dir_fd=fd)
            try:
                status = os.fstat(found)
                if status.st_uid != os.geteuid() or not try_lock(found):
                    continue
                if stat.S_ISREG(status.st_mode):
                    os.unlink(name, dir_fd=fd)
                elif stat.S_ISDIR(status.st_mode) and folder is not None:
                    remove_tree(os.path.join(folder, os.fsdecode(name)))
            finally:
                os.close(found)


def _kind(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0
