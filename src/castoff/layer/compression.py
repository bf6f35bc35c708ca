"""How layers are compressed.

Compression is chosen by the size of a layer alone, so that the same layer gives the same bytes on every machine:
small layers (a runtime image's) at zlib-ng's best ratio, large ones with ISA-L at level 1, many times faster. A
missing encoder is an error, never silently another one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from castoff.errors import UnsupportedError, UsageError
from castoff.layer.decompression import open_decompressed, sniff
from castoff.oci import mediatypes

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Algorithm", "Compression", "Encoder", "new_encoder", "open_decompressed", "sniff"]

Algorithm = Literal["gzip", "zstd", "none"]

SMALL_LAYER = 32 << 20
"""Layers up to this many bytes of tar are compressed at the best ratio."""
BEST_GZIP_LEVEL = 9
DEFAULT_ZSTD_LEVEL = 3

# RFC 1952: magic, deflate, no flags, no time, the strongest compression's mark left unset, unknown operating system.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_RAW_DEFLATE = -15
_DEFLATED = 8
_MEDIA_TYPES = {
    "gzip": mediatypes.OCI_LAYER_GZIP,
    "zstd": mediatypes.OCI_LAYER_ZSTD,
    "none": mediatypes.OCI_LAYER,
}


@dataclass(frozen=True, slots=True)
class Compression:
    """How a layer's bytes are compressed.

    Attributes:
        algorithm: gzip, zstd or none.
        level: gzip 0 to 9, zstd 1 to 22; None lets the size of the layer decide (gzip), or is level 3 (zstd).
    """

    algorithm: Algorithm = "gzip"
    level: int | None = None

    @classmethod
    def parse(cls, name: str, level: str | int | None = None) -> Compression:
        """Read an exporter's ``compression=`` and ``compression-level=``.

        Raises:
            UsageError: the name is unknown, or the level is out of its range.
        """
        algorithm: Algorithm
        match name:
            case "gzip":
                algorithm, lowest, highest = "gzip", 0, 9
            case "zstd":
                algorithm, lowest, highest = "zstd", 1, 22
            case "uncompressed" | "none":
                algorithm, lowest, highest = "none", 0, 22
            case _:
                raise UsageError(f"unknown compression {name!r}", hint="castoff has gzip, zstd and uncompressed")
        if level is None or algorithm == "none":
            return cls(algorithm)
        try:
            number = int(level)
        except ValueError as error:
            raise UsageError(f"the compression level {level!r} is not a number") from error
        if not lowest <= number <= highest:
            raise UsageError(f"the compression level {number} of {name} is not between {lowest} and {highest}")
        return cls(algorithm, number)

    def __str__(self) -> str:
        """Return a text that tells this value from others, for cache keys."""
        return self.algorithm if self.level is None else f"{self.algorithm}-{self.level}"

    @property
    def media_type(self) -> str:
        """The OCI media type of a layer that is compressed like this."""
        return _MEDIA_TYPES[self.algorithm]


class Encoder(Protocol):
    """Compresses one stream of bytes. Its output depends on the bytes and on how they are cut into blocks."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Return what can be written after taking some more bytes."""

    def flush(self) -> bytes:
        """Return the rest; the encoder is then used up."""


class _Plain:
    """Hands bytes through."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _RawDeflate(Protocol):
    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Gzip:
    """Wraps a raw deflate stream as one gzip member whose header has no time, name or operating system."""

    def __init__(self, module: ModuleType, level: int) -> None:
        self._deflate: _RawDeflate = module.compressobj(level, _DEFLATED, _RAW_DEFLATE)
        self._crc32 = module.crc32
        self._crc = 0
        self._size = 0
        self._head = _GZIP_HEADER

    def compress(self, data: bytes | memoryview, /) -> bytes:
        self._crc = self._crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        head, self._head = self._head, b""
        return head + self._deflate.flush() + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


def new_encoder(compression: Compression, size: int) -> Encoder:
    """Begin the compression of a layer.

    Args:
        compression: what is asked for.
        size: bytes of the layer's tar stream, as `castoff.layer.create.tar_size` gives them: it decides between the
            encoders of gzip where no level is given.

    Raises:
        UnsupportedError: the encoder is not installed.
    """
    match compression.algorithm:
        case "none":
            return _Plain()
        case "zstd":
            return _zstd_encoder(DEFAULT_ZSTD_LEVEL if compression.level is None else compression.level)
        case "gzip" if compression.level is None and size > SMALL_LAYER:
            return _Gzip(_isal(), 1)
        case "gzip":
            return _Gzip(_zlib_ng(), BEST_GZIP_LEVEL if compression.level is None else compression.level)


def _isal() -> ModuleType:
    try:
        from isal import isal_zlib
    except ImportError as error:
        raise _missing("isal") from error
    return isal_zlib


def _zlib_ng() -> ModuleType:
    try:
        from zlib_ng import zlib_ng
    except ImportError as error:
        raise _missing("zlib-ng") from error
    return zlib_ng


def _zstd_encoder(level: int) -> Encoder:
    try:
        import zstandard
    except ImportError as error:
        raise _missing("zstandard") from error
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()


def _missing(package: str) -> UnsupportedError:
    return UnsupportedError(
        f"the Python package {package} is not installed, and its encoder can't be replaced by another one: "
        "the layer would have another digest",
        feature=package,
        hint=f"pip install {package}",
    )
