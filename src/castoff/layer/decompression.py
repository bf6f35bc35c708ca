"""Opens compressed archives of any of the usual kinds, told apart by their first bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

from castoff.errors import InvalidImageError, UnsupportedError
from castoff.layer.tarfields import BLOCK, looks_like_tar

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.layer.tarreader import Readable

Kind = Literal["gzip", "zstd", "bzip2", "xz", "none"]

HEAD = 6
"""How many first bytes tell the kind."""
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_INPUT = 1 << 18
_OUTPUT = 1 << 20
_XZ_MEMORY = 512 << 20
_ZSTD_WINDOW = 1 << 27


def sniff(head: bytes) -> Kind:
    """Return how a stream is compressed by its first bytes; "none" where it is not, or not in a known way."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "none"


def open_decompressed(raw: Readable, *, limit: int | None = None, close: bool = False) -> BinaryIO:
    """Open a stream for reading what it holds, uncompressed, whichever way it is compressed.

    Several members or frames one after the other are one stream. Memory stays bounded however much comes out.

    Args:
        raw: the compressed stream, from its beginning.
        limit: how many bytes may come out; None for no bound.
        close: whether closing the result closes `raw` (a `BinaryIO` then) too.

    Raises:
        UnsupportedError: the decoder is not installed.
    """
    head = b""
    while len(head) < HEAD and (more := raw.read(HEAD - len(head))):
        head += more
    kind = sniff(head)
    source = _Joined(head, raw)
    stream: _Stream
    match kind:
        case "none":
            stream = _Plain(source, limit)
        case "zstd":
            stream = _Zstd(source, limit)
        case _:
            stream = _Members(source, limit, _decoder(kind), kind)
    if close:
        stream.owned = cast("BinaryIO", raw)
    return cast("BinaryIO", stream)


def is_archive(raw: Readable) -> bool:
    """Tell whether a stream is a tar archive, compressed or not, by reading its beginning."""
    try:
        with open_decompressed(raw) as stream:
            return looks_like_tar(stream.read(2 * BLOCK))
    except (InvalidImageError, UnsupportedError):
        return False


class _Joined:
    """A stream with some bytes put back in front."""

    def __init__(self, head: bytes, raw: Readable | _Joined) -> None:
        self._head = head
        self._raw = raw

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._raw.read(size)


class _Stream(io.RawIOBase):
    """A readable stream made of blocks of at most `_OUTPUT` bytes."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.owned: BinaryIO | None = None
        self._limit = limit
        self._given = 0
        self._block = b""
        self._at = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if self.owned is not None:
            self.owned.close()
        super().close()

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        parts: list[bytes] = []
        while size > 0:
            if self._at == len(self._block):
                self._block = self._more()
                self._at = 0
                if not self._block:
                    break
            part = self._block if not self._at and len(self._block) <= size else self._block[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def _more(self) -> bytes:
        block = self._next()
        self._given += len(block)
        if self._limit is not None and self._given > self._limit:
            raise InvalidImageError(
                f"the archive unpacks to more than {self._limit} bytes", hint="it may be made to fill the machine"
            )
        return block

    def _next(self) -> bytes:
        raise NotImplementedError


class _Plain(_Stream):
    def __init__(self, source: _Joined, limit: int | None) -> None:
        super().__init__(limit)
        self._source = source

    def _next(self) -> bytes:
        return self._source.read(_OUTPUT)


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Members(_Stream):
    """gzip, bzip2 and xz: members one after the other, zero bytes allowed behind the last."""

    def __init__(self, source: _Joined, limit: int | None, new: Callable[[], _Decoder], kind: Kind) -> None:
        super().__init__(limit)
        self._source = source
        self._new = new
        self._kind = kind
        self._decoder: _Decoder | None = new()

    def _next(self) -> bytes:
        while self._decoder is not None:
            data = b""
            if self._decoder.needs_input:
                data = self._source.read(_INPUT)
                if not data:
                    raise InvalidImageError(f"the {self._kind} stream is cut short", hint="fetch it again")
            block = self._decode(self._decoder, data)
            if self._decoder.eof:
                self._next_member(self._decoder.unused_data)
            if block:
                return block
        return b""

    def _decode(self, decoder: _Decoder, data: bytes) -> bytes:
        try:
            return decoder.decompress(data, _OUTPUT)
        except Exception as error:
            # isal, bz2 and lzma each raise a class of their own.
            raise InvalidImageError(f"the {self._kind} stream is damaged: {error}") from error

    def _next_member(self, rest: bytes) -> None:
        """Begin the next member, or end the stream."""
        self._decoder = None
        while True:
            rest = rest.lstrip(b"\0")
            if len(rest) >= HEAD:
                break
            more = self._source.read(_INPUT)
            if not more:
                break
            rest += more
        if not rest:
            return
        if sniff(rest) != self._kind:
            raise InvalidImageError(f"the {self._kind} stream has something else behind it")
        self._source = _Joined(rest, self._source)
        self._decoder = self._new()


class _Zstd(_Stream):
    def __init__(self, source: _Joined, limit: int | None) -> None:
        super().__init__(limit)
        try:
            import zstandard
        except ImportError as error:
            raise _missing("zstandard") from error
        self._error = zstandard.ZstdError
        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._reader = decoder.stream_reader(cast("Any", source), read_size=_INPUT, read_across_frames=True)

    def _next(self) -> bytes:
        try:
            return self._reader.read(_OUTPUT)
        except self._error as error:
            raise InvalidImageError(f"the zstd stream is damaged: {error}") from error


def _decoder(kind: Kind) -> Callable[[], _Decoder]:
    try:
        if kind == "gzip":
            from isal import igzip_lib

            return lambda: cast("_Decoder", igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))
        if kind == "bzip2":
            from bz2 import BZ2Decompressor

            return BZ2Decompressor
        from lzma import LZMADecompressor
    except ImportError as error:
        raise _missing({"gzip": "isal", "bzip2": "bz2"}.get(kind, "lzma")) from error
    return lambda: LZMADecompressor(memlimit=_XZ_MEMORY)


def _missing(module: str) -> UnsupportedError:
    return UnsupportedError(f"the Python module {module} is not there, and an archive needs it", feature=module)
