"""Removing a folder whatever is in it: any depth, any names, modes that forbid it."""

from __future__ import annotations

import contextlib
import os
import stat


def remove_tree(path: str) -> bool:
    """Remove a file or a folder with all that is in it, and tell whether it is gone. Idempotent.

    Symbolic links are removed, never followed. What the system refuses to remove (files of ids that are not ours, a
    mount) stays. Folders are lifted to the top before they are emptied, so that a nesting that no path and no stack
    could hold is removed as well.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return True
        top = _open_folder(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        _empty(top)
    finally:
        os.close(top)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _open_folder(name: str | bytes, dir_fd: int | None = None) -> int:
    """Open a folder for reading, and give its owner the right to change it where the mode forbids that."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        # O_PATH needs no permission on the folder itself, and chmod by way of /proc follows no link in the name.
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        fd = os.open(name, flags, dir_fd=dir_fd)
    status = os.fstat(fd)
    if status.st_mode & 0o700 != 0o700:
        with contextlib.suppress(OSError):  # a folder of somebody else: what it allows is tried
            os.fchmod(fd, 0o700)
    return fd


def _empty(top: int) -> None:
    """Remove everything in a folder, in passes: each takes the files, and lifts the folders of the next level up."""
    token = os.urandom(8).hex().encode()
    pending = _entries(top)
    count = 0
    while pending:
        name, is_dir = pending.pop()
        if not is_dir:
            _quietly_unlink(name, top)
            continue
        try:
            os.rmdir(name, dir_fd=top)
            continue
        except OSError:
            pass  # not empty
        try:
            fd = _open_folder(name, top)
        except OSError:
            continue
        try:
            for child, child_is_dir in _entries(fd):
                if not child_is_dir:
                    _quietly_unlink(child, fd)
                    continue
                count += 1
                lifted = b".rm-%s-%d" % (token, count)
                if _lift(child, fd, lifted, top):
                    pending.append((lifted, True))
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=top)
        except OSError:
            continue  # something in it may not be removed


def _entries(fd: int) -> list[tuple[bytes, bool]]:
    """Return the names in an open folder, and which of them are folders."""
    with os.scandir(fd) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def _quietly_unlink(name: bytes, fd: int) -> None:
    with contextlib.suppress(OSError):  # not ours to remove: the caller sees that the folder stays
        os.unlink(name, dir_fd=fd)


def _lift(name: bytes, source: int, lifted: bytes, top: int) -> bool:
    for attempt in (0, 1):
        try:
            os.rename(name, lifted, src_dir_fd=source, dst_dir_fd=top)
        except PermissionError:
            if attempt:
                return False
            try:  # moving a folder changes its "..", so its own mode must allow writing
                os.close(_open_folder(name, source))
            except OSError:
                return False
        except OSError:
            return False
        else:
            return True
    return False
