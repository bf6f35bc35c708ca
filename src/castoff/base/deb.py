"""Binary packages: an ar archive of two tar archives, as in deb(5). Everything in them is taken for hostile."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, BinaryIO, cast

from castoff.errors import InvalidImageError
from castoff.fs.entry import FileEntry, display

_MAGIC = b"!<arch>\n"
_HEADER = 60
_MAX_CONTROL = 64 << 20
_MAX_CONTENT = 8 << 30
_MAX_ENTRIES = 1_000_000
_MEMLIMIT = 256 << 20
_DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Control:
    """The control part of a package.

    Attributes:
        paragraph: the control file as it stands, one newline at its end.
        md5sums: MD5 by path, as the package lists them; empty where it lists none.
    """

    paragraph: bytes
    md5sums: tuple[tuple[bytes, bytes], ...]

    def field(self, name: str) -> str:
        """Return the first line of a field; "" where it is absent."""
        prefix = name.lower().encode() + b":"
        for line in self.paragraph.splitlines():
            if line.lower().startswith(prefix):
                return line[len(prefix) :].strip().decode("utf-8", "replace")
        return ""


class _Section(io.RawIOBase):
    """A part of a file, as a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__()
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class Deb:
    """An open package; a context manager.

    Args:
        path: host path of the file.

    Raises:
        InvalidImageError: it is not a package.
    """

    def __init__(self, path: str) -> None:
        self._name = os.path.basename(path)
        self._stream = open(path, "rb")  # noqa: SIM115  (closed in __exit__)
        try:
            self._members = self._scan()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Deb:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stream.close()

    def _error(self, problem: str) -> InvalidImageError:
        return InvalidImageError(f"the package {self._name} {problem}")

    def _scan(self) -> dict[str, tuple[int, int]]:
        """Return offset and size of the members by name."""
        if self._stream.read(len(_MAGIC)) != _MAGIC:
            raise self._error("is not an ar archive")
        end = os.fstat(self._stream.fileno()).st_size
        members: dict[str, tuple[int, int]] = {}
        while len(header := self._stream.read(_HEADER)) == _HEADER and len(members) < 32:
            digits = header[48:58].strip()
            offset = self._stream.tell()
            if header[58:] != b"`\n" or not digits.isdigit() or offset + int(digits) > end:
                raise self._error("has a damaged ar header")
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            members.setdefault(name, (offset, int(digits)))
            self._stream.seek(offset + int(digits) + int(digits) % 2)
        if "debian-binary" not in members:
            raise self._error("has no member debian-binary")
        return members

    @contextlib.contextmanager
    def _tar(self, part: str) -> Iterator[tarfile.TarFile]:
        name = next((name for name in self._members if name in _forms(part)), None)
        if name is None:
            raise self._error(f"has no member {part} in a form that is known")
        offset, size = self._members[name]
        self._stream.seek(offset)
        section = cast("BinaryIO", io.BufferedReader(_Section(self._stream, size), 1 << 18))
        try:
            with (
                _decompressed(section, name) as stream,
                tarfile.open(
                    fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=1 << 18
                ) as archive,
            ):
                yield archive
        except InvalidImageError:
            raise
        except _DAMAGED as error:
            raise self._error(f"has a damaged member {name}: {error}") from error

    def control(self) -> Control:
        """Read the control part.

        Raises:
            InvalidImageError: it is damaged, too large, or has no control file.
        """
        files: dict[bytes, bytes] = {}
        total = 0
        with self._tar("control.tar") as archive:
            for member in archive:
                total += member.size
                if total > _MAX_CONTROL:
                    raise self._error("has a control part that is too large")
                path = self._path(member.name)
                if path in (b"control", b"md5sums") and (stream := archive.extractfile(member)):
                    files[path] = stream.read()
        if b"control" not in files:
            raise self._error("has no control file")
        sums = []
        for line in files.get(b"md5sums", b"").splitlines():
            digest, _, path = line.partition(b" ")
            if len(digest) == 32 and path.strip():
                sums.append((path.strip().removeprefix(b"./"), digest))
        return Control(files[b"control"].strip() + b"\n", tuple(sums))

    def content(self) -> Iterator[tuple[FileEntry, IO[bytes] | None]]:
        """Yield the entries of the data part with their content, which must be read before the next entry.

        Paths are relative and clean; `hardlink` names an earlier path. The root itself is left out.

        Raises:
            InvalidImageError: it is damaged, too large, or an entry leads out of the root; the entry is named.
        """
        total = 0
        with self._tar("data.tar") as archive:
            for count, member in enumerate(archive):
                total += member.size if member.isreg() else 0
                if total > _MAX_CONTENT or count > _MAX_ENTRIES:
                    raise self._error("is too large when unpacked")
                path = self._path(member.name)
                if path:
                    entry = self._entry(member, path)
                    yield entry, archive.extractfile(member) if entry.is_file and entry.hardlink is None else None

    def _path(self, name: str) -> bytes:
        raw = os.fsencode(name)
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in raw:
            raise self._error(f"has the entry {display(raw)!r}, which leads out of the root")
        return b"/".join(parts)

    def _entry(self, member: tarfile.TarInfo, path: bytes) -> FileEntry:
        owner = FileEntry(path, member.mode & 0o7777, member.uid, member.gid, mtime_ns=int(member.mtime) * 10**9)
        if member.isdir():
            return replace(owner, mode=stat.S_IFDIR | owner.mode)
        if member.issym():
            return replace(owner, mode=stat.S_IFLNK | 0o777, link=os.fsencode(member.linkname))
        if member.islnk():
            return replace(owner, mode=stat.S_IFREG | owner.mode, hardlink=self._path(member.linkname))
        if member.isreg():
            return replace(owner, mode=stat.S_IFREG | owner.mode, size=member.size)
        raise self._error(f"has the entry {display(path)!r} of a kind that packages do not have")


def _forms(part: str) -> tuple[str, ...]:
    return part, f"{part}.xz", f"{part}.gz", f"{part}.zst"


@contextlib.contextmanager
def _decompressed(section: BinaryIO, name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".xz"):
        # LZMAFile takes no limit of memory; a decompressor with one does the work.
        yield cast("IO[bytes]", io.BufferedReader(_Decompressing(section), 1 << 18))
    elif name.endswith(".gz"):
        with gzip.GzipFile(fileobj=section, mode="rb") as stream:
            yield cast("IO[bytes]", stream)
    elif name.endswith(".zst"):
        import zstandard

        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(section) as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield section


class _Decompressing(io.RawIOBase):
    """An xz stream, decompressed with a limit of memory."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMLIMIT)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._xz.eof:
            feed = self._stream.read(1 << 16) if self._xz.needs_input else b""
            if self._xz.needs_input and not feed:
                raise EOFError("the compressed data end too soon")
            data = self._xz.decompress(feed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0
