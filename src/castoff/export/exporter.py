"""What an exporter takes, gives back, and promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from castoff.events import Observer
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.store.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class ImageResult:
    """An image that is to be exported.

    Attributes:
        descriptor: its manifest, or the index of one for several platforms.
        references: what names it; may be empty.
        blobs: where its manifest, config and layers are.
        created: RFC 3339; "" to say nothing.
    """

    descriptor: Descriptor
    references: tuple[Reference, ...]
    blobs: BlobStore
    created: str = ""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an exporter wrote.

    Attributes:
        dest: where; ``-`` for standard output.
        digest: the manifest or index that it holds; None for a plain file system.
        size: bytes written.
        skipped: what could not be written, such as device nodes by an ordinary user; one phrase each.
    """

    dest: str
    digest: Digest | None
    size: int
    skipped: tuple[str, ...] = ()


class Exporter(Protocol):
    """Writes an image to one place."""

    def export(self, result: ImageResult, observer: Observer, vertex: str = "") -> ExportReport:
        """Write the image. Atomic for archives: the destination is replaced whole, or stays as it was.

        Args:
            result: the image.
            observer: told of the bytes written.
            vertex: the vertex that these belong to.

        Raises:
            ExportError: the destination can't be written.
            StoreError: a blob is missing or damaged.
            InvalidImageError: the image is not valid, or of a kind that this format can't hold.
        """
