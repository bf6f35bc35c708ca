"""Digests of the content of files."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from castoff.errors import ContextError
from castoff.fs.entry import display
from castoff.fs.union import open_source

if TYPE_CHECKING:
    from castoff.fs.entry import FileEntry

_BUFFER = 1 << 18


class FileHasher:
    """Takes sha256 digests of regular files, with one buffer for all of them. One for each thread."""

    __slots__ = ("_view",)

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_BUFFER))

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of an entry's content.

        Raises:
            ContextError: it is not a regular file, can't be read, or has not the size that the entry says.
        """
        if not entry.is_file:
            raise ContextError(f"{display(entry.path)} is not a regular file")
        if entry.data is not None:
            return hashlib.sha256(entry.data).digest()
        if entry.source is None:
            raise ContextError(f"the content of {display(entry.path)} is not at hand")
        descriptor = open_source(entry, entry.source)
        try:
            return self._read(entry, descriptor)
        except OSError as error:
            raise ContextError(f"can't read {display(entry.path)}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _read(self, entry: FileEntry, descriptor: int) -> bytes:
        hasher = hashlib.sha256()
        view = self._view
        total = 0
        while count := os.readv(descriptor, [view]):
            hasher.update(view[:count])
            total += count
        if total != entry.size:
            raise ContextError(
                f"{display(entry.path)} changed while it was being read", hint="build again when nothing writes to it"
            )
        return hasher.digest()
