"""What an image consists of, as the files of an OCI image layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import BlobNotFoundError, InvalidImageError
from castoff.image.image import MAX_DEPTH, read_document
from castoff.oci import mediatypes
from castoff.oci.descriptor import FULL_NAME, REF_NAME
from castoff.oci.jsontext import dump
from castoff.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.export.exporter import ImageResult
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

LAYOUT = dump({"imageLayoutVersion": "1.0.0"})
CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True)
class BlobFile:
    """One blob of a layout: which, and from which store."""

    digest: Digest
    size: int
    blobs: BlobStore

    @property
    def name(self) -> str:
        """Its place in a layout."""
        return f"blobs/{self.digest.algorithm}/{self.digest.hex}"


def collect_blobs(results: Iterable[ImageResult]) -> tuple[BlobFile, ...]:
    """Return all blobs of some images, each once, sorted by name.

    Of an index, images that are not in the store at all are left out, as they are when only one platform was loaded.

    Raises:
        BlobNotFoundError: a blob is missing.
        InvalidImageError: a document is not valid.
    """
    found: dict[Digest, BlobFile] = {}
    for result in results:
        _gather(result.blobs, result.descriptor, found, 0)
    return tuple(sorted(found.values(), key=lambda blob: blob.name))


def _gather(blobs: BlobStore, descriptor: Descriptor, found: dict[Digest, BlobFile], depth: int) -> None:
    if descriptor.digest in found:
        return
    if depth > MAX_DEPTH:
        raise InvalidImageError(f"the indexes of the image are nested more than {MAX_DEPTH} deep")
    size = blobs.size(descriptor.digest)
    if size is None:
        raise BlobNotFoundError(
            f"the blob {descriptor.digest} is not in the store", hint="build, load or pull the image again"
        )
    found[descriptor.digest] = BlobFile(descriptor.digest, descriptor.size, blobs)
    children: list[Descriptor] = []
    if descriptor.media_type in mediatypes.INDEXES:
        index = Index.parse(read_document(blobs, descriptor))
        children = [child for child in index.manifests if blobs.size(child.digest) is not None]
        if index.manifests and not children:
            raise BlobNotFoundError(f"no image of the index {descriptor.digest} is in the store")
    elif descriptor.media_type in mediatypes.MANIFESTS:
        manifest = Manifest.parse(read_document(blobs, descriptor))
        children = [manifest.config, *manifest.layers]
    for child in children:
        _gather(blobs, child, found, depth + 1)


def entries_of(result: ImageResult) -> tuple[Descriptor, ...]:
    """Return the entries of a layout's index for one image: one for each of its names, annotated as BuildKit does."""
    own = dict(result.descriptor.annotations)
    if result.created:
        own[CREATED] = result.created
    if not result.references:
        return (result.descriptor.with_annotations(own),)
    return tuple(
        result.descriptor.with_annotations(
            {**own, FULL_NAME: str(reference), REF_NAME: reference.tag or str(reference.digest)}
        )
        for reference in result.references
    )
