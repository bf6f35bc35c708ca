"""Which blobs may not have reached the disk yet, so that a power failure never leaves a broken one unnoticed.

A blob is renamed to its digest without waiting for the disk, and noted in a list that belongs to this boot of the
machine. Before a tag names blobs, all on the list are synced. A list of an earlier boot tells which blobs must be
verified: a process that is killed loses nothing, a machine that stops may.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from castoff.store.locking import exclusive
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "unsynced-"
_LINE = 256


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


class UnsyncedList:
    """The blobs of a store that were written since they were last synced. Safe for several threads and processes."""

    def __init__(self, folder: str, blobs: str) -> None:
        self._folder = folder
        self._blobs = blobs
        self._path = f"{folder}/{_PREFIX}{_boot()}"

    def note(self, name: str) -> None:
        """Note a blob (``sha256/…``) before it is renamed to its place.

        Raises:
            OSError: the store can't be written.
        """
        with exclusive(self._path) as fd:
            os.lseek(fd, 0, os.SEEK_END)
            os.write(fd, name.encode() + b"\n")

    def sync(self) -> None:
        """Wait until all noted blobs are on the disk. Idempotent.

        Raises:
            OSError: the disk failed, or is full.
        """
        try:
            if not os.stat(self._path).st_size:
                return
        except FileNotFoundError:
            return
        with exclusive(self._path) as fd:
            names = _names(fd)
            for name in names:
                _sync(f"{self._blobs}/{name}", os.fdatasync)
            for algorithm in {name.partition("/")[0] for name in names}:
                _sync(f"{self._blobs}/{algorithm}", os.fsync)
            os.ftruncate(fd, 0)

    def recover(self) -> list[str]:
        """Remove what a stop of the machine has broken, and return its names. Idempotent."""
        with os.scandir(self._folder) as entries:
            lists = [entry.path for entry in entries if entry.name.startswith(_PREFIX) and entry.path != self._path]
        broken: list[str] = []
        for path in lists:
            with exclusive(path) as fd:
                for name in _names(fd):
                    if not _whole(f"{self._blobs}/{name}", name):
                        remove_tree(f"{self._blobs}/{name}")
                        broken.append(name)
                remove_tree(path)
        return broken


def _names(fd: int) -> list[str]:
    data = bytearray()
    while chunk := os.pread(fd, 1 << 16, len(data)):
        data += chunk
    names = (line.decode("ascii", "replace") for line in bytes(data).split(b"\n") if 0 < len(line) < _LINE)
    # A list that was cut short may hold half a line: only whole names are paths.
    return [name for name in dict.fromkeys(names) if name.replace("/", "", 1).isalnum() and name.count("/") == 1]


def _sync(path: str, call: Callable[[int], None]) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        call(fd)
    finally:
        os.close(fd)


def _whole(path: str, name: str) -> bool:
    """Tell whether the blob has the bytes that its name promises; one that is not there is not broken."""
    algorithm, _, value = name.partition("/")
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == value
    except FileNotFoundError:
        return True
    except ValueError:
        return False
