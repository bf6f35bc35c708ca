"""Replacing a small file whole."""

from __future__ import annotations

import os

_MODE = 0o644


def replace_file(path: str, data: bytes, *, durable: bool = False, locked: bool = False) -> None:
    """Give a file new content, and mode 0644.

    Atomic: a reader sees the old or the new bytes, and a failure leaves the old ones.

    Args:
        path: the file, which may not exist yet.
        data: all of its new content.
        durable: whether the new bytes are on the disk before they take the place of the old ones.
        locked: whether the caller holds a lock that keeps others from replacing the same file. The temporary file then
            always has the same name, so that those of killed processes do not pile up.

    Raises:
        OSError: the folder can't be written.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{'new' if locked else os.urandom(6).hex()}"
    flags = os.O_TRUNC if locked else os.O_EXCL
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, _MODE)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, _MODE)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
