"""How an image was made: its history, newest first, as docker history shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castoff.image.validate import MAX_UNCOMPRESSED
from castoff.layer.decompression import HEAD, open_decompressed, sniff

if TYPE_CHECKING:
    from castoff.image.image import StoredImage
    from castoff.oci.config import ImageConfig
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

MISSING = "<missing>"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One instruction of an image.

    Attributes:
        id: Docker's image id on the newest row, ``<missing>`` on the others, which are no images of their own.
        created: RFC 3339; "" where the image does not say.
        created_by: the instruction.
        comment: such as ``buildkit.dockerfile.v0``.
        size: bytes of its layer, uncompressed; 0 where it made none.
        compressed: bytes of its layer as it is stored.
        layer: the diff_id of its layer; None where it made none.
    """

    id: str
    created: str
    created_by: str
    comment: str
    size: int
    compressed: int
    layer: Digest | None

    def to_json(self) -> dict[str, Any]:
        """Return the row for ``--format json``."""
        return {
            "ID": self.id,
            "CreatedAt": self.created,
            "CreatedBy": self.created_by,
            "Comment": self.comment,
            "Size": self.size,
            "CompressedSize": self.compressed,
            "Layer": str(self.layer) if self.layer else "",
        }


def instructions(config: ImageConfig) -> tuple[str, ...]:
    """Return the instruction that made each layer, bottom first; "" where the history has fewer entries."""
    made = [entry.created_by for entry in config.history if not entry.empty_layer]
    count = len(config.diff_ids)
    return tuple([*made, *[""] * count][:count])


def history(image: StoredImage) -> tuple[HistoryRow, ...]:
    """Return the history of an image, newest first. Its layers are read, for their uncompressed sizes.

    An image without a history gives one row for each layer.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: the image is not valid.
    """
    config = image.config()
    layers = list(image.layers())
    rows: list[HistoryRow] = []
    for entry in config.history:
        layer = layers.pop(0) if not entry.empty_layer and layers else None
        size = uncompressed_size(image.blobs, layer.descriptor) if layer else 0
        compressed = layer.descriptor.size if layer else 0
        diff_id = layer.diff_id if layer else None
        rows.append(HistoryRow(MISSING, entry.created, entry.created_by, entry.comment, size, compressed, diff_id))
    for layer in layers:
        size = uncompressed_size(image.blobs, layer.descriptor)
        rows.append(HistoryRow(MISSING, "", "", "", size, layer.descriptor.size, layer.diff_id))
    rows.reverse()
    if rows:
        from dataclasses import replace

        rows[0] = replace(rows[0], id=str(image.config_digest()))
    return tuple(rows)


def uncompressed_size(blobs: BlobStore, layer: Descriptor) -> int:
    """Return the bytes of a layer's tar stream. A compressed layer is read whole.

    Raises:
        BlobNotFoundError: it is not there.
        InvalidImageError: it can't be uncompressed.
    """
    with blobs.open_(layer.digest) as file:
        if sniff(file.read(HEAD)) == "none":
            return layer.size
        file.seek(0)
        size = 0
        stream = open_decompressed(file, limit=MAX_UNCOMPRESSED)
        while piece := stream.read(_PIECE):
            size += len(piece)
        return size
