"""Loading the images of a Docker archive, as docker save has written it in all its versions since 1.10."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import TYPE_CHECKING

from castoff.errors import DigestMismatchError, InvalidImageError, InvalidReferenceError
from castoff.image.archivefiles import read_small
from castoff.image.ingest import LoadedImage, take
from castoff.image.mutate import store_manifest
from castoff.image.validate import diff_id as diff_id_of
from castoff.layer.decompression import HEAD, sniff
from castoff.oci import mediatypes
from castoff.oci.config import ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields
from castoff.oci.manifest import Manifest
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from castoff.image.archivefiles import ImageFiles
    from castoff.store.blobs import BlobStore

_NAMED = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_TYPES = {"none": mediatypes.OCI_LAYER, "gzip": mediatypes.OCI_LAYER_GZIP, "zstd": mediatypes.OCI_LAYER_ZSTD}
_MAX_IMAGES = 1000


def load_docker(files: ImageFiles, blobs: BlobStore) -> list[LoadedImage]:
    """Copy all images of a Docker archive into a store, with new OCI manifests; nothing is tagged.

    Configs keep their bytes, so that image ids stay. Layers stay as they are, uncompressed or not.

    Raises:
        InvalidImageError: it is no valid archive.
        DigestMismatchError: a layer is not that of its diff_id, or a config not that of its name.
        StoreError: the store can't be written.
    """
    try:
        entries = json.loads(read_small(files, "manifest.json"))
    except (ValueError, RecursionError) as error:
        raise InvalidImageError(f"manifest.json in {files.name} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InvalidImageError(f"manifest.json in {files.name} lists no image")
    if len(entries) > _MAX_IMAGES:
        raise InvalidImageError(f"{files.name} holds more than {_MAX_IMAGES} images")
    return [_load_image(files, blobs, entry) for entry in entries]


def _load_image(files: ImageFiles, blobs: BlobStore, entry: object) -> LoadedImage:
    if not isinstance(entry, dict):
        raise InvalidImageError(f"manifest.json in {files.name} has an entry that is not an object")
    fields = Fields(entry, f"entry of manifest.json in {files.name}")
    name = fields.text("Config", required=True)
    data = read_small(files, name)
    digest = Digest.of(data)
    named = _NAMED.fullmatch(name)
    if named and named[1] != digest.hex:
        raise DigestMismatchError(
            f"the config {name!r} in {files.name} is damaged: it has the digest {digest}",
            expected=f"sha256:{named[1]}",
            actual=str(digest),
        )
    config = ImageConfig.parse(data)
    names = fields.texts("Layers") or ()
    if len(names) != len(config.diff_ids):
        raise InvalidImageError(
            f"an image in {files.name} has {len(names)} layers, and its config has {len(config.diff_ids)} diff_ids"
        )
    if not names:
        raise InvalidImageError(f"an image in {files.name} has no layers")
    layers = tuple(
        _take_layer(files, blobs, layer, diff_id) for layer, diff_id in zip(names, config.diff_ids, strict=True)
    )
    blobs.add(data)
    manifest = Manifest(Descriptor(mediatypes.OCI_CONFIG, digest, len(data)), layers)
    return LoadedImage(store_manifest(blobs, manifest), _references(fields.texts("RepoTags") or ()), digest)


def _references(tags: tuple[str, ...]) -> tuple[Reference, ...]:
    found = []
    for tag in tags:
        with contextlib.suppress(InvalidReferenceError):
            found.append(Reference.parse(tag))
    return tuple(dict.fromkeys(found))


def _take_layer(files: ImageFiles, blobs: BlobStore, name: str, diff_id: Digest) -> Descriptor:
    """Copy one layer and return its descriptor."""
    size = files.size(name)
    if size is None:
        raise InvalidImageError(f"{files.name} lacks the layer {name!r}")
    with contextlib.closing(files.iter_(name)) as pieces:
        compression = sniff(next(pieces, b"")[:HEAD])
    if compression not in _TYPES:
        raise InvalidImageError(
            f"the layer {name!r} in {files.name} is compressed with {compression}, which no image may have"
        )
    if compression == "none":
        return Descriptor(mediatypes.OCI_LAYER, diff_id, take(blobs, files, name, diff_id, size))
    running = hashlib.sha256()
    with contextlib.closing(files.iter_(name)) as pieces:
        for piece in pieces:
            running.update(piece)
    digest = Digest("sha256", running.hexdigest())
    take(blobs, files, name, digest, size)
    actual = diff_id_of(blobs, digest)
    if actual != diff_id:
        raise DigestMismatchError(
            f"the layer {name!r} in {files.name} is damaged: its diff_id is {actual} and should be {diff_id}",
            expected=str(diff_id),
            actual=str(actual),
        )
    return Descriptor(_TYPES[compression], digest, size)
