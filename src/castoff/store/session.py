"""The temporary folder of one process in a store, which goes when the process goes."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
from typing import TYPE_CHECKING

from castoff.store.failure import translated
from castoff.store.locking import try_lock
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from types import TracebackType

_LOCK = ".lock"


class Session:
    """A folder for what is not finished, on the store's file system, so that a rename makes it permanent.

    A lock beside it is held while the process lives; a session whose lock can be taken is stale and is removed by the
    next one. Safe for several threads. A child that is forked without an exec holds the lock too.
    """

    def __init__(self, path: str, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._use_fd: int | None = None
        self._counter = itertools.count()
        self._closed = False

    @classmethod
    def begin(cls, folder: str) -> Session:
        """Begin a session in the folder of sessions, and remove stale ones.

        Args:
            folder: absolute path of the store's ``tmp``.

        Raises:
            StoreError: the folder can't be written.
        """
        with translated(f"begin a session in {folder}"):
            while True:
                path = f"{folder}/{os.getpid()}-{os.urandom(6).hex()}"
                lock_fd = os.open(path + _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock_fd, fcntl.LOCK_EX)
                # A sweep may have taken the lock between the two calls, and removed the file.
                if os.fstat(lock_fd).st_nlink:
                    break
                os.close(lock_fd)
            os.mkdir(path, 0o700)
        sweep(folder, keep=path)
        return cls(path, lock_fd)

    def new_dir(self) -> str:
        """Make an empty folder (mode 0700) and return its absolute path.

        Raises:
            StoreError: the store can't be written.
        """
        path = f"{self.path}/{next(self._counter)}"
        with translated(f"make a folder in {self.path}"):
            os.mkdir(path, 0o700)
        return path

    def new_file(self) -> io.FileIO:
        """Make an empty file (mode 0600), open for reading and writing, not buffered; `name` is its absolute path.

        Raises:
            StoreError: the store can't be written.
        """
        path = f"{self.path}/{next(self._counter)}"
        with translated(f"make a file in {self.path}"):
            return io.FileIO(path, "x+", opener=_open_private)

    def hold_blobs(self, use_lock: str) -> None:
        """Keep other processes from collecting blobs, until the session ends or lets go of them. Idempotent.

        Waits while another process is collecting.

        Args:
            use_lock: path of the file whose shared lock says so.

        Raises:
            StoreError: the store can't be written.
        """
        if self._use_fd is None:
            with translated("lock the store's blobs"):
                fd = os.open(use_lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_SH)
                self._use_fd = fd

    def release_blobs(self) -> None:
        """Let other processes collect blobs, as one does that needs none for long. Idempotent."""
        if self._use_fd is not None:
            os.close(self._use_fd)
            self._use_fd = None

    def exclude_others(self) -> bool:
        """Try to become the only session that holds blobs, having held them; `include_others` ends that."""
        return self._use_fd is not None and try_lock(self._use_fd)

    def include_others(self) -> None:
        """Go back to sharing the blobs with other sessions."""
        if self._use_fd is not None:
            fcntl.flock(self._use_fd, fcntl.LOCK_SH)

    def close(self) -> None:
        """Remove the folder and all that is left in it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if remove_tree(self.path):
            remove_tree(self.path + _LOCK)
        os.close(self._lock_fd)
        self.release_blobs()

    def __enter__(self) -> Session:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def sweep(folder: str, keep: str = "") -> int:
    """Remove the sessions whose processes are gone, and return their number. Idempotent; never fails.

    Args:
        folder: absolute path of the store's ``tmp``.
        keep: the path of one that is left alone.
    """
    try:
        with os.scandir(folder) as entries:
            names = {entry.name.removesuffix(_LOCK) for entry in entries if entry.name[:1].isdigit()}
    except OSError:
        return 0
    removed = 0
    for name in names:
        path = f"{folder}/{name}"
        if path == keep:
            continue
        try:
            # A live session has made its lock before its folder: where there is none, this makes a free one.
            fd = os.open(path + _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            if try_lock(fd) and remove_tree(path):
                removed += remove_tree(path + _LOCK)
        finally:
            os.close(fd)
    return removed
