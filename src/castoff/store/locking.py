"""Locks between processes, and between threads of one: flock on a file of the store."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def exclusive(path: str) -> Iterator[int]:
    """Hold the exclusive lock of a file, which is made where it is missing; yields its descriptor.

    Each use opens the file anew, so that threads exclude one another too. It is not re-entrant. The lock goes with the
    process, however that ends.

    Raises:
        OSError: the file can't be opened for writing.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def try_lock(fd: int, operation: int = fcntl.LOCK_EX) -> bool:
    """Take a lock if nobody holds one against it, and tell whether that was so."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
