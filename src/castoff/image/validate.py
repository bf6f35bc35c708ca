"""Checking an image whole: every digest and size, and that its documents agree."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from castoff.errors import CastoffError, InvalidImageError
from castoff.image.image import StoredImage, iter_manifests
from castoff.layer.decompression import open_decompressed
from castoff.oci import mediatypes
from castoff.store.blobfolder import check_registered

if TYPE_CHECKING:
    from castoff.image.image import ImageLayer
    from castoff.oci.config import ImageConfig
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

MAX_UNCOMPRESSED = 1 << 38
"""The most bytes that one layer may turn into (256 GiB)."""
_PIECE = 1 << 20


def validate(blobs: BlobStore, descriptor: Descriptor, *, deep: bool = True) -> None:
    """Check the images of a manifest or an index.

    Args:
        blobs: where they are.
        descriptor: the manifest or index.
        deep: whether to read the layers too (digest and diff_id); off, only their presence and size are checked.

    Raises:
        InvalidImageError: naming everything that is wrong.
        StoreError: an index is missing or damaged.
    """
    found = [problem for manifest in iter_manifests(blobs, descriptor) for problem in problems(blobs, manifest, deep)]
    if found:
        raise InvalidImageError(f"the image {descriptor.digest} is not valid: {'; '.join(found)}")


def problems(blobs: BlobStore, manifest: Descriptor, deep: bool = True) -> list[str]:
    """Return one phrase for each thing that is wrong with the image of one manifest."""
    image = StoredImage(blobs, manifest)
    try:
        config = image.config()
        layers = image.layers()
    except CastoffError as error:
        return [error.message]
    found = _disagreements(image, config)
    for layer in layers:
        found += _layer_problems(blobs, layer, deep)
    return found


def _disagreements(image: StoredImage, config: ImageConfig) -> list[str]:
    found = []
    manifest = image.manifest()
    if manifest.config.media_type not in mediatypes.CONFIGS:
        found.append(f"the config is of type {manifest.config.media_type}")
    found += [
        f"the layer {layer.digest} is of the unknown type {layer.media_type}"
        for layer in manifest.layers
        if layer.media_type not in mediatypes.LAYERS
    ]
    making = sum(not entry.empty_layer for entry in config.history)
    if config.history and making != len(config.diff_ids):
        found.append(f"the history has {making} entries that make layers, and there are {len(config.diff_ids)} layers")
    if image.descriptor.platform is not None:
        listed, own = image.descriptor.platform, config.platform
        if (listed.os, listed.architecture) != (own.os, own.architecture):
            found.append(f"the index says {listed}, and the config says {own}")
    return found


def _layer_problems(blobs: BlobStore, layer: ImageLayer, deep: bool) -> list[str]:
    digest = layer.descriptor.digest
    size = blobs.size(digest)
    if size is None:
        return [f"the layer {digest} is missing"]
    if size != layer.descriptor.size:
        return [f"the layer {digest} has {size} bytes, and its descriptor says {layer.descriptor.size}"]
    if not deep:
        return []
    try:
        if blob_digest(blobs, digest) != digest:
            return [f"the layer {digest} is damaged"]
        actual = diff_id(blobs, digest)
    except CastoffError as error:
        return [error.message]
    return [] if actual == layer.diff_id else [f"the layer {digest} has the diff_id {actual} and not {layer.diff_id}"]


def blob_digest(blobs: BlobStore, digest: Digest) -> Digest:
    """Return the digest that the bytes of a blob really have, of the same algorithm.

    Raises:
        BlobNotFoundError: it is not there.
        StoreError: the algorithm is not one that can be computed here.
    """
    check_registered(digest)
    running = hashlib.new(digest.algorithm)
    with blobs.open_(digest) as file:
        while piece := file.read(_PIECE):
            running.update(piece)
    return type(digest)(digest.algorithm, running.hexdigest())


def diff_id(blobs: BlobStore, digest: Digest) -> Digest:
    """Return the sha256 digest of a layer's uncompressed bytes.

    Raises:
        BlobNotFoundError: it is not there.
        InvalidImageError: it can't be uncompressed.
    """
    running = hashlib.sha256()
    with open_decompressed(blobs.open_(digest), limit=MAX_UNCOMPRESSED, close=True) as stream:
        while piece := stream.read(_PIECE):
            running.update(piece)
    return type(digest)("sha256", running.hexdigest())
