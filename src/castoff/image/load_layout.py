"""Loading the images of an OCI image layout, whether in a folder or in an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.image.archivefiles import blob_name, read_small
from castoff.image.image import MAX_DEPTH, MAX_MANIFESTS, StoredImage, read_document
from castoff.image.ingest import LoadedImage, take
from castoff.oci import mediatypes
from castoff.oci.descriptor import FULL_NAME, REF_NAME
from castoff.oci.jsontext import load_object
from castoff.oci.manifest import Index, Manifest
from castoff.store.images import CREATED, reference_of

if TYPE_CHECKING:
    from castoff.image.archivefiles import ImageFiles
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.store.blobs import BlobStore

_PLACE = frozenset({FULL_NAME, REF_NAME, "org.opencontainers.image.created", CREATED})


def load_layout(files: ImageFiles, blobs: BlobStore) -> list[LoadedImage]:
    """Copy all images of a layout into a store; nothing is tagged.

    Of an index, manifests that the layout does not hold are left out, as long as there is one. Entries that are no
    images are left out too.

    Raises:
        InvalidImageError: it is no valid layout, or an image is not whole.
        DigestMismatchError: a blob is not what its digest promises.
        StoreError: the store can't be written.
    """
    marker = load_object(read_small(files, "oci-layout"), "oci-layout file")
    version = marker.get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidImageError(f"{files.name} is an image layout of the unknown version {version!r}")
    index = Index.parse(read_small(files, "index.json"))
    walk = _Walk(files, blobs)
    names: dict[Digest, list[Reference]] = {}
    found: dict[Digest, Descriptor] = {}
    for entry in index.manifests:
        if not walk.image(entry, 0):
            continue
        references = names.setdefault(entry.digest, [])
        reference = reference_of(dict(entry.annotations), bare=False)
        if reference is not None and reference not in references:
            references.append(reference)
        found.setdefault(entry.digest, _plain(entry))
    if not found:
        raise InvalidImageError(f"{files.name} holds no image")
    return [LoadedImage(entry, tuple(names[digest]), _config_digest(blobs, entry)) for digest, entry in found.items()]


def _plain(entry: Descriptor) -> Descriptor:
    """Return a descriptor without the annotations that belong to its place in the layout."""
    return entry.with_annotations({key: value for key, value in entry.annotations if key not in _PLACE})


def _config_digest(blobs: BlobStore, entry: Descriptor) -> Digest | None:
    if entry.media_type not in mediatypes.MANIFESTS:
        return None
    return StoredImage(blobs, entry).config_digest()


class _Walk:
    """Copies images, each once."""

    def __init__(self, files: ImageFiles, blobs: BlobStore) -> None:
        self._files = files
        self._blobs = blobs
        self._done: dict[Digest, bool] = {}

    def image(self, entry: Descriptor, depth: int) -> bool:
        """Copy what an entry names, and tell whether it was an image."""
        known = self._done.get(entry.digest)
        if known is not None:
            return known
        if depth > MAX_DEPTH:
            raise InvalidImageError(f"the indexes in {self._files.name} are nested more than {MAX_DEPTH} deep")
        if len(self._done) >= MAX_MANIFESTS:
            raise InvalidImageError(f"{self._files.name} holds more than {MAX_MANIFESTS} manifests")
        # Until it is known: an index that contains itself adds nothing to itself.
        self._done[entry.digest] = False
        if entry.media_type in mediatypes.MANIFESTS:
            self._manifest(entry)
        elif entry.media_type not in mediatypes.INDEXES or not self._index(entry, depth):
            return False
        self._done[entry.digest] = True
        return True

    def _index(self, entry: Descriptor, depth: int) -> bool:
        self._take(entry)
        children = Index.parse(read_document(self._blobs, entry)).manifests
        present = [child for child in children if self._has(child)]
        if children and not present:
            raise InvalidImageError(f"{self._files.name} holds none of the images of the index {entry.digest}")
        copied = [self.image(child, depth + 1) for child in present]
        return any(copied)

    def _has(self, entry: Descriptor) -> bool:
        return self._files.size(blob_name(entry.digest)) is not None

    def _manifest(self, entry: Descriptor) -> None:
        self._take(entry)
        manifest = Manifest.parse(read_document(self._blobs, entry))
        for blob in (manifest.config, *manifest.layers):
            self._take(blob)
        if manifest.config.media_type in mediatypes.CONFIGS:
            StoredImage(self._blobs, entry).layers()  # the manifest and the config agree

    def _take(self, descriptor: Descriptor) -> None:
        take(self._blobs, self._files, blob_name(descriptor.digest), descriptor.digest, descriptor.size)
