"""A layer of an image, wherever its bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from castoff.layer.decompression import open_decompressed

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore


class Layer(Protocol):
    """A layer as images have it. Immutable."""

    @property
    def digest(self) -> Digest:
        """Digest of the compressed bytes."""

    @property
    def diff_id(self) -> Digest:
        """Digest of the uncompressed bytes."""

    @property
    def size(self) -> int:
        """Number of the compressed bytes."""

    @property
    def media_type(self) -> str:
        """The media type of the compressed bytes."""

    def open_compressed(self) -> BinaryIO:
        """Open the bytes as a registry has them.

        Raises:
            BlobNotFoundError: they are not there.
        """

    def open_uncompressed(self) -> BinaryIO:
        """Open the tar stream; it is not verified on the way.

        Raises:
            BlobNotFoundError: the bytes are not there.
            InvalidImageError: later, on reading, where they are damaged.
        """


@dataclass(frozen=True, slots=True)
class BlobLayer:
    """A layer whose bytes are in a blob store.

    Attributes:
        blobs: the store.
        descriptor: what the manifest says of it.
        diff_id: what the config says of it.
    """

    blobs: BlobStore
    descriptor: Descriptor
    diff_id: Digest

    @property
    def digest(self) -> Digest:
        """Digest of the compressed bytes."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Number of the compressed bytes."""
        return self.descriptor.size

    @property
    def media_type(self) -> str:
        """The media type of the compressed bytes."""
        return self.descriptor.media_type

    def open_compressed(self) -> BinaryIO:
        """Open the bytes as a registry has them.

        Raises:
            BlobNotFoundError: they are not there.
        """
        return self.blobs.open_(self.digest)

    def open_uncompressed(self) -> BinaryIO:
        """Open the tar stream; closing it closes the blob.

        Raises:
            BlobNotFoundError: the bytes are not there.
        """
        blob = self.open_compressed()
        try:
            return open_decompressed(blob, close=True)
        except BaseException:
            blob.close()
            raise
