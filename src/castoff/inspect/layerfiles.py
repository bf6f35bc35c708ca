"""What files a layer holds, counted in one pass."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.image.validate import MAX_UNCOMPRESSED
from castoff.layer.decompression import open_decompressed
from castoff.layer.tarstream import TarReader

if TYPE_CHECKING:
    from typing import BinaryIO

    from castoff.oci.descriptor import Descriptor
    from castoff.store.blobs import BlobStore

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class LayerScan:
    """What a layer holds.

    Attributes:
        size: bytes of the tar stream.
        files: entries, folders and deletions included.
        content: bytes of the regular files.
        largest: the largest regular files as (bytes, path), largest first.
    """

    size: int
    files: int
    content: int
    largest: tuple[tuple[int, bytes], ...]


def scan_layer(blobs: BlobStore, layer: Descriptor, largest: int) -> LayerScan:
    """Read a layer and count what is in it; memory stays bounded.

    Args:
        blobs: where it is.
        layer: which one.
        largest: how many of the largest files to name.

    Raises:
        BlobNotFoundError: it is not there.
        InvalidImageError: it is no valid archive.
    """
    files = content = 0
    best: list[tuple[int, bytes]] = []
    with open_decompressed(blobs.open_(layer.digest), limit=MAX_UNCOMPRESSED, close=True) as stream:
        counted = _Counted(stream)
        for member in TarReader(counted):
            files += 1
            entry = member.entry
            if not entry.size or entry.hardlink is not None or not entry.is_file:
                continue
            content += entry.size
            if len(best) < largest:
                heapq.heappush(best, (entry.size, entry.path))
            elif best and entry.size > best[0][0]:
                heapq.heapreplace(best, (entry.size, entry.path))
        while counted.read(_PIECE):
            pass
    return LayerScan(counted.count, files, content, tuple(sorted(best, reverse=True)))


class _Counted:
    """A stream that counts its bytes."""

    __slots__ = ("_stream", "count")

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data
