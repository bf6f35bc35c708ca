"""ADD: archives of the context are unpacked where they would be copied to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError, InvalidImageError
from castoff.fs.entry import FileEntry, display
from castoff.layer.decompression import is_archive, open_decompressed
from castoff.layer.tarreader import TarLimits, TarReader
from castoff.ops.select import Selected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.layer.tarreader import TarContent
    from castoff.store.session import Session

_ARCHIVE_DEVICE = -2
_IN_MEMORY = 1 << 16


def unpack_archives(selection: Iterable[Selected], session: Session, *, required: bool) -> tuple[Selected, ...]:
    """Return a selection in which every archive is replaced by a directory that holds what is in it.

    An archive is told by decompressing its beginning and reading a tar header, never by its name. Content larger than
    64 KiB goes to the session's folder.

    Args:
        selection: what ADD selected.
        session: takes the content of archives.
        required: whether a file that is no archive is an error (``--unpack=true``), or is copied.

    Raises:
        InvalidImageError: an archive is damaged, or holds paths that lead out of it.
        ContextError: a file is no archive and must be one.
    """
    result: list[Selected] = []
    for item in selection:
        if item.top.is_file and _is_archive(item.top):
            folder = session.new_dir()
            below = tuple(_members(item.top, folder))
            top = FileEntry(item.top.path, 0o40755)
            result.append(Selected(item.name, top, below, unpacked=True))
        elif required and item.top.is_file:
            raise ContextError(f"{display(item.top.path)} is not an archive", hint="leave --unpack out to copy it")
        else:
            result.append(item)
    return tuple(result)


def _is_archive(entry: FileEntry) -> bool:
    if not entry.size or entry.source is None:
        return False
    with open(entry.source, "rb") as file:
        return is_archive(file)


def _members(archive: FileEntry, folder: str) -> Iterable[tuple[bytes, FileEntry]]:
    """Return the entries of an archive by path; of two for the same path the later one counts."""
    assert archive.source is not None
    found: dict[bytes, FileEntry] = {}
    inodes: dict[bytes, tuple[int, int]] = {}
    try:
        with open(archive.source, "rb") as raw, open_decompressed(raw) as stream:
            for entry, content in TarReader(stream, TarLimits()):
                if not entry.path:
                    continue
                if entry.hardlink is not None:
                    target = _target(found, entry)
                    inode = inodes.setdefault(target.path, (_ARCHIVE_DEVICE, len(inodes)))
                    found[target.path] = replace(target, inode=inode)
                    found[entry.path] = replace(target, path=entry.path, inode=inode)
                    inodes[entry.path] = inode
                    continue
                found.pop(entry.path, None)
                found[entry.path] = _with_content(entry, content, f"{folder}/{len(found)}")
    except InvalidImageError as error:
        raise InvalidImageError(f"{display(archive.path)} can't be unpacked: {error.message}") from error
    return sorted(found.items(), key=lambda row: row[0].split(b"/"))


def _target(found: dict[bytes, FileEntry], link: FileEntry) -> FileEntry:
    target = found.get(link.hardlink or b"")
    if target is None:
        raise InvalidImageError(f"the hard link {display(link.path)} leads to nothing that came before it")
    return target


def _with_content(entry: FileEntry, content: TarContent, path: str) -> FileEntry:
    """Return an entry whose content is at hand, in memory or in the file `path`, and is as old as the entry says."""
    if not entry.is_file:
        return entry
    if entry.size <= _IN_MEMORY:
        return replace(entry, data=content.read(_IN_MEMORY))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for block in content:
            file.write(block)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
    return replace(entry, source=os.fsencode(path))
