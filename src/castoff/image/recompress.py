"""Giving the layers of an image another compression: the same diff_ids, config and id, other digests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import DigestMismatchError, InvalidImageError
from castoff.image.image import StoredImage
from castoff.image.mutate import store_manifest
from castoff.image.validate import MAX_UNCOMPRESSED
from castoff.layer.compression import Compression, new_encoder
from castoff.layer.layer import BlobLayer
from castoff.layer.tarstream import CHUNK
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest

if TYPE_CHECKING:
    from castoff.image.image import ImageLayer
    from castoff.store.blobs import BlobStore

_ALGORITHMS = {
    mediatypes.OCI_LAYER: "none",
    mediatypes.DOCKER_LAYER: "none",
    mediatypes.OCI_LAYER_GZIP: "gzip",
    mediatypes.DOCKER_LAYER_GZIP: "gzip",
    mediatypes.OCI_LAYER_ZSTD: "zstd",
}


def recompress(
    blobs: BlobStore, descriptor: Descriptor, compression: Compression, *, force: bool = False
) -> Descriptor:
    """Return the manifest of an image whose layers are compressed in a certain way. Idempotent.

    The manifest itself is returned where nothing is to be done.

    Args:
        blobs: where the image is, and where the new blobs go.
        descriptor: the manifest of one image.
        compression: what the layers shall have.
        force: whether layers with another compression are changed too, and those of the same algorithm where a level
            is asked for; off, only uncompressed ones are.

    Raises:
        StoreError: a blob is missing or damaged, or the store can't be written.
        InvalidImageError: the image is not valid.
        UnsupportedError: an encoder or a decoder is not installed.
    """
    image = StoredImage(blobs, descriptor)
    layers = tuple(
        _convert(blobs, layer, compression) if _wanted(layer.descriptor, compression, force) else layer.descriptor
        for layer in image.layers()
    )
    manifest = image.manifest()
    if layers == manifest.layers:
        return descriptor
    changed = replace(
        manifest,
        layers=layers,
        media_type=mediatypes.OCI_MANIFEST,
        config=replace(manifest.config, media_type=mediatypes.OCI_CONFIG),
    )
    return store_manifest(blobs, changed, descriptor.platform).with_annotations(dict(descriptor.annotations))


def _wanted(layer: Descriptor, compression: Compression, force: bool) -> bool:
    algorithm = _ALGORITHMS.get(layer.media_type)
    if algorithm is None:
        return False
    if force:
        return algorithm != compression.algorithm or compression.level is not None
    return algorithm == "none" and compression.algorithm != "none"


def _convert(blobs: BlobStore, layer: ImageLayer, compression: Compression) -> Descriptor:
    import hashlib

    source = BlobLayer(blobs, layer.descriptor, layer.diff_id)
    # The size decides between the encoders, and has to be known before the first byte is encoded.
    encoder = new_encoder(compression, _uncompressed_size(source))
    running = hashlib.sha256()
    with source.open_uncompressed() as stream, blobs.writer() as writer:
        # Pieces of the size that new layers are made of: the encoders' output depends on it.
        while piece := stream.read(CHUNK):
            running.update(piece)
            if encoded := encoder.compress(piece):
                writer.write(encoded)
        writer.write(encoder.flush())
        diff_id = Digest("sha256", running.hexdigest())
        if diff_id != layer.diff_id:
            raise DigestMismatchError(
                f"the layer {layer.descriptor.digest} is damaged: its diff_id is {diff_id} and not {layer.diff_id}",
                expected=str(layer.diff_id),
                actual=str(diff_id),
            )
        digest, size = writer.commit()
    return Descriptor(compression.media_type, digest, size, annotations=layer.descriptor.annotations)


def _uncompressed_size(layer: BlobLayer) -> int:
    if _ALGORITHMS[layer.media_type] == "none":
        return layer.size
    size = 0
    with layer.open_uncompressed() as stream:
        while piece := stream.read(CHUNK):
            size += len(piece)
            if size > MAX_UNCOMPRESSED:
                raise InvalidImageError(f"the layer {layer.digest} turns into more than {MAX_UNCOMPRESSED} bytes")
    return size
