"""ADD: archives of the context are unpacked where they would be copied to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError, InvalidImageError, StoreError
from castoff.fs.entry import FileEntry, display
from castoff.fs.union import open_content
from castoff.layer.decompression import is_archive, open_decompressed
from castoff.layer.tarreader import TarLimits, TarReader
from castoff.ops.select import Selected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.layer.tarreader import TarContent
    from castoff.store.session import Session

_LIMITS = TarLimits(entries=2_000_000, size=256 << 30)
_IN_MEMORY = 64 << 10
_ALL_IN_MEMORY = 64 << 20


def unpack_archives(
    selection: Iterable[Selected], session: Session, limits: TarLimits = _LIMITS
) -> tuple[Selected, ...]:
    """Return a selection in which every archive is replaced by what is in it, in the archive's order.

    An archive is told by decompressing its beginning and reading a tar header, never by its name; a file that is none
    stays. Small files are held in memory, up to a bound for each archive; the others go to the session's folder.

    Args:
        selection: what ADD selected.
        session: takes the content of archives.
        limits: bounds for one archive.

    Raises:
        InvalidImageError: an archive is damaged, holds paths that lead out of it, or goes beyond the limits.
        ContextError: an archive can't be read, or its content finds no room.
    """
    return tuple(_unpacked(item, session, limits) for item in selection)


def _unpacked(item: Selected, session: Session, limits: TarLimits) -> Selected:
    if not item.top.is_file or not _is_archive(item.top):
        return item
    below = tuple(_Archive(item.top, session.new_dir(), limits).members())
    return Selected(item.name, item.top, below, unpacked=True)


def _is_archive(entry: FileEntry) -> bool:
    if not entry.size:
        return False
    with open_content(entry) as file:
        return is_archive(file)


class _Archive:
    """One archive that is being read."""

    def __init__(self, entry: FileEntry, folder: str, limits: TarLimits) -> None:
        self._entry = entry
        self._folder = folder
        self._limits = limits
        self._in_memory = 0
        self._files = 0

    def members(self) -> Iterator[tuple[bytes, FileEntry]]:
        """Yield the entries in the order of the archive, all but its root, with their content at hand."""
        try:
            with open_content(self._entry) as raw, open_decompressed(raw) as stream:
                for entry, content in TarReader(stream, self._limits):
                    if entry.path:
                        yield entry.path, self._with_content(entry, content)
        except InvalidImageError as error:
            raise InvalidImageError(f"{display(self._entry.path)} can't be unpacked: {error.message}") from error

    def _with_content(self, entry: FileEntry, content: TarContent) -> FileEntry:
        if not entry.is_file or entry.hardlink is not None:
            return entry
        if entry.size <= _IN_MEMORY and self._in_memory + entry.size <= _ALL_IN_MEMORY:
            self._in_memory += entry.size
            return replace(entry, data=content.read(_IN_MEMORY))
        self._files += 1
        path = f"{self._folder}/{self._files}"
        try:
            self._write(entry, content, path)
        except OSError as error:
            raise StoreError(
                f"{display(entry.path)} of {display(self._entry.path)} can't be unpacked to {self._folder}: "
                f"{error.strerror}"
            ) from error
        return replace(entry, source=os.fsencode(path))

    def _write(self, entry: FileEntry, content: TarContent, path: str) -> None:
        room = os.statvfs(self._folder)
        if entry.size > room.f_bavail * room.f_frsize:
            raise ContextError(
                f"{display(entry.path)} of {display(self._entry.path)} has {entry.size} bytes, and {self._folder} has "
                f"room for {room.f_bavail * room.f_frsize}"
            )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for block in content:
                file.write(block)
