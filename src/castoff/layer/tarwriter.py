"""The tar stream of a layer: ustar headers, pax records only where ustar can't say it, always the same bytes.

References: POSIX.1-2017 "pax", section "ustar Interchange Format"; OCI image specification, "Image Layer Filesystem
Changeset".
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from castoff.errors import ContextError
from castoff.fs.changes import Added, Removed
from castoff.fs.entry import FileEntry, display
from castoff.fs.treelayer import join
from castoff.fs.union import check_stamp, open_source
from castoff.layer.tarfields import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.fs.changes import Change

__all__ = [
    "BLOCK",
    "CHUNK",
    "OPAQUE_NAME",
    "WHITEOUT_PREFIX",
    "TarStream",
    "header",
    "whiteout_header",
    "whiteout_path",
]

CHUNK = 1 << 20
"""Every buffer of a tar stream but the last has this many bytes: encoders' output depends on it."""
WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"

_FORMAT = 0o170000
_END = bytes(2 * BLOCK)
_NAME_SIZE = 100
_PREFIX_SIZE = 155
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_PAX_NAME = b"PaxHeaders/entry"


def header(entry: FileEntry, mtime: int) -> bytes:
    """Return the header blocks of one entry, with those of its pax records before them.

    Args:
        entry: the entry; a hard link has `hardlink` set.
        mtime: modification time in seconds.

    Raises:
        ContextError: tar can't hold such a file.
    """
    mode = entry.mode
    kind = mode & _FORMAT
    name = entry.path
    size = 0
    if entry.hardlink is not None:
        flag, link = b"1", entry.hardlink
    else:
        try:
            flag = _TYPES[kind]
        except KeyError:
            raise ContextError(f"{display(name)} is of a type that no layer can hold") from None
        link = entry.link
        if kind == stat.S_IFDIR:
            name = name + b"/" if name else b"./"
        elif kind == stat.S_IFREG:
            size = entry.size
    uid, gid, rdev = entry.uid, entry.gid, entry.rdev
    # Almost every entry fits as it is: the common case is one format operation.
    if (
        len(name) <= _NAME_SIZE
        and len(link) <= _NAME_SIZE
        and not rdev
        and not entry.xattrs
        and 0 <= uid <= _MAX_ID
        and 0 <= gid <= _MAX_ID
        and size <= _MAX_SIZE
        and 0 <= mtime <= _MAX_SIZE
        and name.isascii()
        and link.isascii()
    ):
        return _ustar(name, mode & 0o7777, (uid, gid, size, mtime), flag, link, 0, b"")
    return _extended(entry, name, link, flag, (uid, gid, size, mtime))


def _extended(entry: FileEntry, name: bytes, link: bytes, flag: bytes, numbers: tuple[int, int, int, int]) -> bytes:
    """Return the headers of an entry for which ustar alone may not do."""
    records: list[tuple[bytes, bytes]] = []
    prefix = b""
    if not name.isascii():
        records.append((b"path", name))
        name = _ascii(name)[:_NAME_SIZE]
    elif len(name) > _NAME_SIZE:
        cut = name.rfind(b"/", 0, min(_PREFIX_SIZE + 1, len(name) - 1))
        if cut > 0 and 0 < len(name) - cut - 1 <= _NAME_SIZE:
            prefix, name = name[:cut], name[cut + 1 :]
        else:
            records.append((b"path", name))
            name = name[:_NAME_SIZE]
    if len(link) > _NAME_SIZE or not link.isascii():
        records.append((b"linkpath", link))
        link = _ascii(link)[:_NAME_SIZE]
    uid, gid, size, mtime = numbers
    fields: list[int] = []
    for key, value, limit in ((b"uid", uid, _MAX_ID), (b"gid", gid, _MAX_ID), (b"size", size, _MAX_SIZE)):
        if value > limit:
            records.append((key, b"%d" % value))
            value = 0  # noqa: PLW2901 - the header's own field
        fields.append(value)
    if not 0 <= mtime <= _MAX_SIZE:
        records.append((b"mtime", b"%d" % mtime))
        mtime = 0
    records.extend((b"SCHILY.xattr." + key, value) for key, value in entry.xattrs)
    main = _ustar(name, entry.mode & 0o7777, (fields[0], fields[1], fields[2], mtime), flag, link, entry.rdev, prefix)
    if not records:
        return main
    body = b"".join(_record(key, value) for key, value in sorted(records))
    pax = _ustar(_PAX_NAME, 0o644, (0, 0, len(body), 0), b"x", b"", 0, b"")
    return pax + body + bytes(-len(body) % BLOCK) + main


def _ustar(  # noqa: PLR0913, PLR0917 - the fields of one format
    name: bytes, mode: int, numbers: tuple[int, int, int, int], flag: bytes, link: bytes, rdev: int, prefix: bytes
) -> bytes:
    uid, gid, size, mtime = numbers
    device = b"%07o\0%07o\0" % (os.major(rdev), os.minor(rdev)) if rdev else b"0000000\x000000000\0"
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(_NAME_SIZE, b"\0"), mode, uid, gid, size, mtime)
    tail = b"%b%bustar\x0000%b%b%b" % (flag, link.ljust(_NAME_SIZE, b"\0"), bytes(64), device, prefix)
    # The checksum counts its own eight bytes as spaces.
    return b"%b%06o\0 %b" % (head, sum(head) + sum(tail) + 256, tail.ljust(BLOCK - 156, b"\0"))


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record: its length in decimal counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) + len(rest) != length:
        length += 1
    return b"%d%b" % (length, rest)


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else 0x5F for byte in name)


def whiteout_header(path: bytes, mtime: int) -> bytes:
    """Return the header of an empty file at a path: a whiteout or an opaque mark."""
    return header(FileEntry(path, stat.S_IFREG), mtime)


def whiteout_path(path: bytes) -> bytes:
    """Return the path of the whiteout that hides another path."""
    parent, _, name = path.rpartition(b"/")
    return join(parent, WHITEOUT_PREFIX + name)


class TarStream:
    """Writes changes as the blocks of a tar stream.

    Args:
        epoch: seconds that modification times are set or clamped to; None keeps them.
        set_times: with an epoch, True gives every entry that time, False only takes later ones back to it.
    """

    def __init__(self, *, epoch: int | None = None, set_times: bool = False) -> None:
        self._epoch = epoch
        self._set_times = set_times
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._used = 0
        self.entries = 0

    def chunks(self, changes: Iterable[Change]) -> Iterator[memoryview]:
        """Yield the stream in buffers of 1 MiB, the last one shorter; a buffer belongs to who takes it.

        Raises:
            ContextError: a file can't be read, or changes while it is being read.
        """
        for change in changes:
            self.entries += 1
            if isinstance(change, Added):
                entry = change.entry
                if entry.name.startswith(WHITEOUT_PREFIX):
                    raise ContextError(
                        f"{display(entry.path)} can't be kept in a layer: names that begin with .wh. mark deletions"
                    )
                yield from self._put(header(entry, self._mtime(entry)))
                if entry.size and entry.hardlink is None and entry.mode & _FORMAT == stat.S_IFREG:
                    yield from self._put_content(entry)
            elif isinstance(change, Removed):
                yield from self._put(whiteout_header(whiteout_path(change.path), self._epoch or 0))
            else:
                yield from self._put(whiteout_header(join(change.path, OPAQUE_NAME), self._epoch or 0))
        yield from self._put(_END)
        if self._used:
            yield self._view[: self._used]

    def _mtime(self, entry: FileEntry) -> int:
        seconds = entry.mtime_ns // 1_000_000_000
        if self._epoch is None:
            return seconds
        return self._epoch if self._set_times else min(seconds, self._epoch)

    def _next(self) -> memoryview:
        full = self._view
        self._buffer = bytearray(CHUNK)
        self._view = memoryview(self._buffer)
        self._used = 0
        return full

    def _put(self, data: bytes) -> Iterator[memoryview]:
        size = len(data)
        used = self._used
        if used + size <= CHUNK:
            self._buffer[used : used + size] = data
            self._used = used + size
            return
        start = 0
        while start < size:
            if self._used == CHUNK:
                yield self._next()
            count = min(size - start, CHUNK - self._used)
            self._buffer[self._used : self._used + count] = data[start : start + count]
            self._used += count
            start += count

    def _put_content(self, entry: FileEntry) -> Iterator[memoryview]:
        if entry.data is not None:
            if len(entry.data) != entry.size:
                raise ContextError(f"{display(entry.path)} has {len(entry.data)} bytes and says {entry.size}")
            yield from self._put(entry.data)
        elif entry.source is None:
            raise ContextError(f"the content of {display(entry.path)} is not at hand")
        else:
            yield from self._put_file(entry, entry.source)
        padding = -entry.size % BLOCK
        if padding:
            yield from self._put(bytes(padding))

    def _put_file(self, entry: FileEntry, source: bytes) -> Iterator[memoryview]:
        descriptor = open_source(entry, source)
        try:
            before = os.fstat(descriptor)
            if before.st_size != entry.size:
                raise _changed(entry)
            left = entry.size
            while left:
                if self._used == CHUNK:
                    yield self._next()
                used = self._used
                count = os.readv(descriptor, [self._view[used : used + min(left, CHUNK - used)]])
                if not count:
                    raise _changed(entry)
                self._used = used + count
                left -= count
            after = os.fstat(descriptor)
            if after.st_size != entry.size or after.st_mtime_ns != before.st_mtime_ns:
                raise _changed(entry)
            check_stamp(entry, descriptor)
        except OSError as error:
            raise ContextError(f"can't read {display(entry.path)}: {error.strerror}") from error
        finally:
            os.close(descriptor)


def _changed(entry: FileEntry) -> ContextError:
    return ContextError(
        f"{display(entry.path)} changed while it was being read", hint="build again when nothing writes to it"
    )
