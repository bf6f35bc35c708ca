"""Reads tar streams: ustar, pax with global headers, GNU long names, base-256 numbers and sparse files, and v7.

Archives are hostile until shown otherwise: names are brought into castoff's form (no leading slash, no "."), a ".." is
refused, and everything that is held in memory has a bound.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from castoff.errors import InvalidImageError
from castoff.fs.entry import FileEntry, display
from castoff.fs.xattrs import select
from castoff.layer import sparsemap
from castoff.layer.paxrecords import MAX_HEADER, XATTR_PREFIX, parse_number, parse_records, parse_time
from castoff.layer.tarfields import BLOCK, ZERO_BLOCK, checksum_fits, parse_field, plain_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.layer.sparsemap import Piece

MAX_NAME = 4096  # what the kernel takes; a longer one has more parents than anything could deal with
_READ = 1 << 20
_ZEROS = bytes(_READ)
_MAX_ID = (1 << 32) - 2
_MAX_SIZE = (1 << 63) - 1
_MAX_TIME = (1 << 40) * 1_000_000_000  # tens of thousands of years, which the system's own numbers still hold
_POSIX_MAGIC = b"ustar\x00"
_KINDS = {
    48: stat.S_IFREG,
    0: stat.S_IFREG,
    55: stat.S_IFREG,  # contiguous
    83: stat.S_IFREG,  # GNU sparse
    49: stat.S_IFREG,  # hard link
    50: stat.S_IFLNK,
    51: stat.S_IFCHR,
    52: stat.S_IFBLK,
    53: stat.S_IFDIR,
    54: stat.S_IFIFO,
}
_HARD_LINK = 49
_OLD_SPARSE = 83
_WITH_CONTENT = frozenset({48, 0, 55, 83})
_VOLUME_LABEL = 86
_PAX, _SOLARIS_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = 120, 88, 103, 76, 75
_EXTENSIONS = frozenset({_PAX, _SOLARIS_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK})


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; b"" at the end."""


@dataclass(frozen=True, slots=True)
class TarLimits:
    """Bounds against archives that are made to fill a machine.

    Attributes:
        entries: how many entries an archive may have.
        size: how many bytes all files together may have.
    """

    entries: int = 5_000_000
    size: int = 1 << 40


class TarMember(NamedTuple):
    """One entry of an archive and its content, which must be read before the next entry is asked for, or never."""

    entry: FileEntry
    content: TarContent


class TarReader:
    """Iterates over the entries of a tar stream, each of them once.

    Args:
        stream: the uncompressed bytes.
        limits: bounds.
    """

    def __init__(self, stream: Readable, limits: TarLimits | None = None) -> None:
        self._stream = stream
        self._limits = limits or TarLimits()
        self._buffer = b""
        self._position = 0
        self._total = 0
        self._globals: dict[bytes, bytes] = {}
        self._content: TarContent | None = None

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the entries with their content.

        Raises:
            InvalidImageError: the archive is cut short, damaged, outside the limits, or holds a path with "..".
        """
        count = 0
        while True:
            header = self._next_header()
            if header is None:
                return
            count += 1
            if count > self._limits.entries:
                raise InvalidImageError(f"the archive has more than {self._limits.entries} entries")
            member = self._member(header)
            if member is not None:
                self._content = member.content
                yield member

    def take(self, size: int) -> memoryview:
        """Return some of the next bytes, at most `size` and at least one; for the content only."""
        if self._position == len(self._buffer):
            self._buffer = self._stream.read(_READ)
            self._position = 0
            if not self._buffer:
                raise _truncated()
        start = self._position
        self._position = min(len(self._buffer), start + size)
        return memoryview(self._buffer)[start : self._position]

    def skip(self, size: int) -> None:
        """Throw bytes away; for the content only."""
        while size:
            size -= len(self.take(size))

    def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes, copied."""
        start = self._position
        if len(self._buffer) - start >= size:
            self._position = start + size
            return self._buffer[start : start + size]
        parts: list[memoryview] = []
        while size:
            part = self.take(size)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _next_header(self) -> _Header | None:
        """Return the next entry's header with what extension headers say of it; None at the end."""
        records: dict[bytes, bytes] = {}
        pairs: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        extended = 0
        while True:
            block = self._header_block()
            if block is None:
                if extended:
                    raise _truncated()
                return None
            flag = block[156]
            if flag not in _EXTENSIONS:
                return _Header(
                    block, {**self._globals, **records} if self._globals else records, pairs, long_name, long_link
                )
            size = parse_field(block[124:136], "size")
            extended += size
            if extended > MAX_HEADER:
                raise InvalidImageError(f"an entry of the archive has more than {MAX_HEADER} bytes of extended headers")
            body = self.exactly(size)
            self.skip(-size % BLOCK)
            if flag == _GNU_NAME:
                long_name = body.partition(b"\0")[0]
            elif flag == _GNU_LINK:
                long_link = body.partition(b"\0")[0]
            elif flag == _PAX_GLOBAL:
                self._globals.update(parse_records(body)[0])
                if sum(map(len, self._globals)) + sum(map(len, self._globals.values())) > MAX_HEADER:
                    raise InvalidImageError(f"the archive has more than {MAX_HEADER} bytes of global headers")
            else:
                more, more_pairs = parse_records(body)
                records.update(more)
                pairs.extend(more_pairs)

    def _header_block(self) -> bytes | None:
        if self._content is not None:
            self._content.finish()
            self._content = None
        if self._position == len(self._buffer):
            self._buffer = self._stream.read(_READ)
            self._position = 0
            if not self._buffer:
                return None
        block = self.exactly(BLOCK)
        if block == ZERO_BLOCK:
            return None
        if not checksum_fits(block):
            raise InvalidImageError("a header of the archive has a wrong checksum: it is damaged, or no tar archive")
        return block

    def _member(self, header: _Header) -> TarMember | None:
        block, records = header.block, header.records
        flag = block[156]
        if flag == _VOLUME_LABEL:
            return None
        kind = _KINDS.get(flag)
        name, link = header.names()
        if kind is None:
            raise InvalidImageError(f"{display(name)} in the archive is of the unknown type {chr(flag)!r}")
        if kind == stat.S_IFREG and flag != _HARD_LINK and name.endswith(b"/"):
            kind = stat.S_IFDIR
        path = plain_path(name)
        stored = header.number(b"size", block[124:136], _MAX_SIZE) if flag in _WITH_CONTENT else 0
        if kind == stat.S_IFDIR:
            self.skip(stored + -stored % BLOCK)
            stored = 0
        padding = -stored % BLOCK
        pieces: tuple[Piece, ...] | None = None
        size = stored
        if flag == _OLD_SPARSE or b"GNU.sparse.realsize" in records or b"GNU.sparse.size" in records:
            pieces, size, stored = self._sparse(header, stored)
        self._total += size
        if self._total > self._limits.size:
            raise InvalidImageError(f"the files of the archive have more than {self._limits.size} bytes")
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        mtime_ns = 0
        if records:
            skip = len(XATTR_PREFIX)
            xattrs = select((key[skip:], value) for key, value in records.items() if key.startswith(XATTR_PREFIX))
        if b"mtime" in records:
            mtime_ns = parse_time(records[b"mtime"])
        else:
            mtime_ns = parse_field(block[136:148], "mtime", signed=True) * 1_000_000_000
        if abs(mtime_ns) > _MAX_TIME:
            raise InvalidImageError(f"{display(name)[:200]} in the archive has a time that no file can have")
        rdev = 0
        if kind in {stat.S_IFCHR, stat.S_IFBLK}:
            major, minor = parse_field(block[329:337], "device"), parse_field(block[337:345], "device")
            if major >= 1 << 12 or minor >= 1 << 20:
                raise InvalidImageError(f"{display(name)} in the archive has the impossible device {major}:{minor}")
            rdev = os.makedev(major, minor)
        entry = FileEntry(
            path,
            kind | parse_field(block[100:108], "mode") & 0o7777,
            header.number(b"uid", block[108:116], _MAX_ID),
            header.number(b"gid", block[116:124], _MAX_ID),
            size,
            mtime_ns,
            link if kind == stat.S_IFLNK else b"",
            rdev,
            xattrs,
            plain_path(link) if flag == _HARD_LINK else None,
        )
        return TarMember(entry, TarContent(self, size, stored, padding, pieces))

    def _sparse(self, header: _Header, stored: int) -> tuple[tuple[Piece, ...], int, int]:
        """Return the map of a sparse file, its size, and how many bytes of data follow."""
        block, records = header.block, header.records
        if block[156] == _OLD_SPARSE:
            size = parse_field(block[483:495], "size")
            pieces = sparsemap.from_header(block, 386, 4)
            more = block[482]
            while more:
                extension = self.exactly(BLOCK)
                pieces += sparsemap.from_header(extension, 0, 21)
                more = extension[504]
                if len(pieces) > sparsemap.MAX_PIECES:
                    raise InvalidImageError("the map of a sparse file in the archive has too many pieces")
        else:
            size = parse_number(records.get(b"GNU.sparse.realsize") or records[b"GNU.sparse.size"], "size")
            if records.get(b"GNU.sparse.major") == b"1":
                pieces, blocks = sparsemap.from_data(lambda: self.exactly(BLOCK))
                stored -= blocks * BLOCK
                if stored < 0:
                    raise InvalidImageError("the map of a sparse file in the archive is longer than its data")
            elif b"GNU.sparse.map" in records:
                pieces = sparsemap.from_list(records[b"GNU.sparse.map"])
            else:
                pieces = sparsemap.from_pairs(header.pairs)
        return sparsemap.check_map(pieces, size, stored), size, stored


class _Header(NamedTuple):
    """A header block and what the extension headers before it say."""

    block: bytes
    records: dict[bytes, bytes]
    pairs: list[tuple[bytes, bytes]]
    long_name: bytes | None
    long_link: bytes | None

    def names(self) -> tuple[bytes, bytes]:
        """Return the name and the link's target."""
        block, records = self.block, self.records
        name = block[:100].partition(b"\0")[0]
        if block[345] and block[257:263] == _POSIX_MAGIC:
            name = block[345:500].partition(b"\0")[0] + b"/" + name
        if self.long_name is not None:
            name = self.long_name
        link = block[157:257].partition(b"\0")[0] if self.long_link is None else self.long_link
        if records:
            name = records.get(b"GNU.sparse.name") or records.get(b"path") or name
            link = records.get(b"linkpath") or link
        if len(name) > MAX_NAME or len(link) > MAX_NAME:
            raise InvalidImageError(f"a name in the archive has more than {MAX_NAME} bytes")
        if b"\0" in name or b"\0" in link:
            raise InvalidImageError(f"the name {display(name)[:200]} in the archive holds a zero byte")
        return name, link

    def number(self, key: bytes, field: bytes, highest: int) -> int:
        """Return a number, from the extended header where it has one."""
        record = self.records.get(key) if self.records else None
        value = parse_number(record, key.decode()) if record else parse_field(field, key.decode())
        if value > highest:
            raise InvalidImageError(f"an entry of the archive has the {key.decode()} {value}, which is too large")
        return value


class TarContent:
    """The bytes of one file of an archive, to be read once and before the next entry."""

    __slots__ = ("_left", "_padding", "_pieces", "_reader", "size")

    def __init__(
        self, reader: TarReader, size: int, stored: int, padding: int, pieces: tuple[Piece, ...] | None
    ) -> None:
        self.size = size
        self._reader = reader
        self._left = stored
        self._padding = padding
        self._pieces = pieces

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the content in blocks, holes as zeros; a block is valid until the next one."""
        if self._pieces is None:
            while self._left:
                yield self._take(self._left)
            return
        position = 0
        for offset, length in self._pieces:
            yield from _zeros(offset - position)
            left = length
            while left:
                block = self._take(left)
                left -= len(block)
                yield block
            position = offset + length
        yield from _zeros(self.size - position)

    def read(self, limit: int) -> bytes:
        """Return the content whole.

        Raises:
            InvalidImageError: it has more than `limit` bytes.
        """
        if self.size > limit:
            raise InvalidImageError(f"a file in the archive has {self.size} bytes, more than {limit}")
        return b"".join(self)

    def finish(self) -> None:
        """Throw away what was not read, and the padding."""
        self._reader.skip(self._left + self._padding)
        self._left = self._padding = 0

    def _take(self, size: int) -> memoryview:
        block = self._reader.take(size)
        self._left -= len(block)
        return block


def _zeros(size: int) -> Iterator[memoryview]:
    while size > 0:
        yield memoryview(_ZEROS)[: min(size, _READ)]
        size -= _READ


def _truncated() -> InvalidImageError:
    return InvalidImageError("the archive is cut short", hint="fetch it again")
