"""The files of an image archive or of a layout folder, by name: bounded, and confined to it."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING, Protocol

from castoff.errors import InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Generator

    from castoff.oci.digest import Digest

_MAX_ENTRIES = 100_000
_MAX_HEADER = 1 << 20
_MAX_LINKS = 40
_CHUNK = 1 << 20


class ImageFiles(Protocol):
    """Named files to read an image from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def size(self, name: str) -> int | None:
        """Return the size of a regular file in bytes; None where there is none of that name."""

    def iter_(self, name: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file in pieces of up to 1 MiB.

        Raises:
            InvalidImageError: there is no such file, or it is cut short.
        """


def blob_name(digest: Digest) -> str:
    """Return the name under which an OCI layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def read_small(files: ImageFiles, name: str, limit: int = 4 << 20) -> bytes:
    """Return a small file whole.

    Raises:
        InvalidImageError: there is no such file, or it is larger than `limit` bytes.
    """
    size = files.size(name)
    if size is None:
        raise InvalidImageError(f"{files.name} lacks the file {name!r}")
    if size > limit:
        raise InvalidImageError(f"the file {name!r} in {files.name} has {size} bytes, more than the {limit} allowed")
    return b"".join(files.iter_(name))


class FolderFiles:
    """The files of a folder. Symbolic links in it are followed: what they lead to is verified by digest."""

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._path

    def size(self, name: str) -> int | None:
        """Return the size of a regular file in bytes; None where there is none of that name."""
        try:
            status = os.stat(self._place(name))
        except (OSError, ValueError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def iter_(self, name: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file in pieces of up to 1 MiB.

        Raises:
            InvalidImageError: there is no such file, it is no regular one, or it can't be read.
        """
        try:
            # A FIFO in the folder must not stall the program.
            fd = os.open(self._place(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InvalidImageError(f"{name!r} in {self._path} is no regular file")
                while piece := os.read(fd, _CHUNK):
                    yield piece
            finally:
                os.close(fd)
        except OSError as error:
            raise InvalidImageError(f"the file {name!r} in {self._path} can't be read: {error.strerror}") from error

    def _place(self, name: str) -> str:
        checked = _clean(name)
        if checked is None:
            raise InvalidImageError(f"the file name {name!r} in {self._path} leads out of it")
        return f"{self._path}/{checked}"


class TarFiles:
    """The files of an uncompressed tar archive that can be read at any place."""

    def __init__(self, fd: int, name: str) -> None:
        """List an archive.

        Args:
            fd: an open descriptor of a regular file, which stays the caller's.
            name: what messages call it.

        Raises:
            InvalidImageError: it is no tar archive, or has too many or too large headers.
        """
        self._fd = fd
        self._name = name
        self._size = os.fstat(fd).st_size
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._list()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    def size(self, name: str) -> int | None:
        """Return the size of a regular file in bytes, links followed; None where there is none of that name."""
        found = self._find(name)
        return None if found is None else found[1]

    def iter_(self, name: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file in pieces of up to 1 MiB.

        Raises:
            InvalidImageError: there is no such file, or the archive ends before it does.
        """
        found = self._find(name)
        if found is None:
            raise InvalidImageError(f"{self._name} lacks the file {name!r}")
        offset, size = found
        end = offset + size
        while offset < end:
            piece = os.pread(self._fd, min(_CHUNK, end - offset), offset)
            if not piece:
                raise InvalidImageError(f"{self._name} ends in the middle of the file {name!r}")
            offset += len(piece)
            yield piece

    def _find(self, name: str) -> tuple[int, int] | None:
        current = _clean(name)
        for _ in range(_MAX_LINKS):
            if current is None:
                return None
            if current in self._files:
                return self._files[current]
            current = self._links.get(current)
        return None

    def _list(self) -> None:
        reader = _BoundedReader(self._fd)
        try:
            with tarfile.open(fileobj=reader, mode="r:") as archive:  # type: ignore[call-overload]
                for count, member in enumerate(archive):
                    if count >= _MAX_ENTRIES:
                        raise InvalidImageError(f"{self._name} has more than {_MAX_ENTRIES} entries")
                    self._note(member)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise InvalidImageError(
                f"{self._name} is no tar archive: {error}", hint="load reads what docker save and skopeo copy write"
            ) from error

    def _note(self, member: tarfile.TarInfo) -> None:
        name = _clean(member.name)
        if name is None:
            raise InvalidImageError(f"the entry {member.name!r} of {self._name} leads out of the archive")
        self._files.pop(name, None)
        self._links.pop(name, None)
        if member.issym():
            target = _clean(member.linkname, os.path.dirname(name))
            if target is not None:
                self._links[name] = target
        elif member.islnk():
            target = _clean(member.linkname)
            if target is not None:
                self._links[name] = target
        elif member.isreg() and not member.issparse():
            if member.offset_data + member.size > self._size:
                raise InvalidImageError(f"{self._name} ends in the middle of the file {name!r}")
            self._files[name] = (member.offset_data, member.size)


class _BoundedReader:
    """What tarfile reads headers through: it refuses to read so much at once that only a bomb can want it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise InvalidImageError(f"a header of a tar archive has {size} bytes, more than the {_MAX_HEADER} allowed")
        data = os.pread(self._fd, size, self._offset)
        self._offset += len(data)
        return data

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._offset
        elif whence == os.SEEK_END:
            offset += os.fstat(self._fd).st_size
        self._offset = offset
        return offset


def _clean(name: str, base: str = "") -> str | None:
    """Return a name in one form, relative to the top of the archive; None where it leads out of it."""
    parts: list[str] = [] if name.startswith("/") else [part for part in base.split("/") if part]
    if "\0" in name:
        return None
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
