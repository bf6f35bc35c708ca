"""Replacing a small file whole."""

from __future__ import annotations

import os


def replace_file(path: str, data: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Give a file new content. Atomic: a reader sees the old or the new bytes, and a failure leaves the old ones.

    Args:
        path: the file, which may not exist yet.
        data: all of its new content.
        mode: permission bits, whatever the umask.
        durable: whether the new bytes are on the disk before they take the place of the old ones.

    Raises:
        OSError: the folder can't be written.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{os.urandom(6).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
