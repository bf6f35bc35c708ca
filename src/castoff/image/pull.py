"""Pulling images from a registry into a store: documents first, then the layers that are not there.

What a registry says is believed only as far as digests go: every document and every blob is verified before anything in
the store names it, and a name is set last.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import BlobNotFoundError, InvalidImageError, RegistryError
from castoff.events import StatusEvent
from castoff.image.image import MAX_DEPTH, MAX_MANIFESTS, StoredImage, read_document, resolve, select
from castoff.oci import mediatypes
from castoff.oci.manifest import Index, Manifest
from castoff.oci.platform import Platform
from castoff.registry.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from castoff.events import Observer
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.registry.documents import Document
    from castoff.registry.repository import Repository
    from castoff.store.blobs import BlobStore
    from castoff.store.store import Store

_MAX_CONFIG = 4 << 20
_PERIOD = 0.1


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that was pulled.

    Attributes:
        reference: what was asked for.
        descriptor: its manifest, or its index: what the registry has under that name.
        manifests: the manifests whose images are now whole in the store.
        transferred: bytes of blobs that came over the network.
    """

    reference: Reference
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    transferred: int


class ByteCounter:
    """Tells an observer how many bytes of one blob were moved, a few times a second. Safe for several threads."""

    def __init__(self, observer: Observer, vertex: str, name: str, total: int) -> None:
        self._observer = observer
        self._vertex = vertex
        self._name = name
        self._total = total
        self._told = 0.0
        self._lock = threading.Lock()
        self.current = 0

    def __call__(self, count: int) -> None:
        """Count some more bytes; a negative number takes some back."""
        with self._lock:
            self.current += count
            now = time.time()
            if now - self._told < _PERIOD:
                return
            self._told = now
            self._observer.status(StatusEvent(self._vertex, self._name, now, self.current, self._total))

    def finish(self) -> None:
        """Say that all of it is there."""
        with self._lock:
            self._observer.status(
                StatusEvent(self._vertex, self._name, time.time(), self._total, self._total, done=True)
            )


class ImageDocuments:
    """Brings the manifests, indexes and configs of one repository's images into a store. For one thread."""

    def __init__(self, repository: Repository, blobs: BlobStore) -> None:
        self._repository = repository
        self._blobs = blobs
        self._count = 0

    def root(self, wanted: str | Digest) -> Descriptor:
        """Fetch what a tag or a digest names, and return its descriptor. Idempotent.

        Raises:
            RegistryError: it can't be had.
            InvalidImageError: it is not valid.
        """
        document = self._repository.get_manifest(wanted)
        self._keep(document)
        return document.descriptor

    def choose(self, root: Descriptor, platform: Platform | None) -> Descriptor:
        """Return the manifest of the image for a platform, all its documents in the store. Idempotent.

        Args:
            root: a manifest or an index in the store.
            platform: what to choose; None for this machine's.

        Raises:
            RegistryError: a document can't be had, or no image fits.
            InvalidImageError: a document is not valid.
        """
        wanted = platform or Platform.host()
        chosen: Descriptor | None = root if root.media_type in mediatypes.MANIFESTS else None
        if chosen is None:
            chosen = select(Index.parse(read_document(self._blobs, root)), wanted)
            if chosen is None or chosen.media_type not in mediatypes.MANIFESTS:
                self._expand(root, (), platforms_only=True)
                try:
                    chosen = resolve(self._blobs, root, wanted)
                except BlobNotFoundError as error:
                    raise RegistryError(
                        f"the image {self._repository.name}@{root.digest} is not for the platform {wanted}",
                        hint=error.hint,
                    ) from error
        self._image(chosen)
        return chosen

    def all(self, root: Descriptor) -> tuple[Descriptor, ...]:
        """Return all manifests below a root, attestations included, their documents in the store. Idempotent.

        Raises:
            RegistryError: a document can't be had.
            InvalidImageError: a document is not valid.
        """
        return tuple(dict.fromkeys(self._expand(root, (), platforms_only=False)))

    def _expand(self, current: Descriptor, path: tuple[Digest, ...], *, platforms_only: bool) -> list[Descriptor]:
        """Fetch an index with all that is below it; return the manifests.

        With `platforms_only`, manifests that an entry with a platform names are left alone: they are known well enough.
        """
        if current.digest in path:
            raise InvalidImageError(f"the index {current.digest} contains itself")
        if len(path) > MAX_DEPTH:
            raise InvalidImageError(f"the indexes of {self._repository.name} are nested more than {MAX_DEPTH} deep")
        self._count += 1
        if self._count > MAX_MANIFESTS:
            raise InvalidImageError(f"the image in {self._repository.name} has more than {MAX_MANIFESTS} manifests")
        if current.media_type in mediatypes.MANIFESTS:
            if not platforms_only or (current.platform is None and path):
                self._image(current)
            return [current]
        if current.media_type not in mediatypes.INDEXES:
            return []
        found = []
        for entry in Index.parse(self._document(current)).manifests:
            found += self._expand(entry, (*path, current.digest), platforms_only=platforms_only)
        return found

    def _image(self, manifest: Descriptor) -> None:
        """Fetch a manifest and its config, and see that they agree."""
        config = Manifest.parse(self._document(manifest)).config
        if config.size > _MAX_CONFIG:
            raise InvalidImageError(f"the config {config.digest} has more than {_MAX_CONFIG >> 20} MiB")
        self._repository.fetch_blob(config, self._blobs)
        if config.media_type in mediatypes.CONFIGS:
            StoredImage(self._blobs, manifest).layers()

    def _document(self, descriptor: Descriptor) -> bytes:
        if self._blobs.size(descriptor.digest) is None:
            document = self._repository.get_manifest(descriptor.digest)
            if document.descriptor.size != descriptor.size:
                raise InvalidImageError(
                    f"the manifest {descriptor.digest} has {document.descriptor.size} bytes, and what names it says"
                    f" {descriptor.size}"
                )
            if document.descriptor.media_type != descriptor.media_type:
                raise InvalidImageError(
                    f"the manifest {descriptor.digest} is of type {document.descriptor.media_type}, and what names it"
                    f" says {descriptor.media_type}"
                )
            self._keep(document)
        return read_document(self._blobs, descriptor)

    def _keep(self, document: Document) -> None:
        if self._blobs.size(document.descriptor.digest) != document.descriptor.size:
            with self._blobs.writer() as writer:
                writer.write(document.data)
                writer.commit(document.descriptor.digest)


def fetch_layers(
    repository: Repository,
    blobs: BlobStore,
    layers: Iterable[Descriptor],
    counter: Callable[[Descriptor], ByteCounter],
    give_up: Callable[[], None],
) -> int:
    """Fetch the layers that a store lacks, several at a time, and return the bytes that came. Idempotent.

    Args:
        repository: where they are.
        blobs: the store.
        layers: in the order in which they are begun.
        counter: gives what is told of the bytes of one layer.
        give_up: makes transfers that are under way fail soon; see `run_all`.

    Raises:
        RegistryError: one can't be had.
        StoreError: the store can't be written.
    """
    missing = [layer for layer in dict.fromkeys(layers) if blobs.size(layer.digest) != layer.size]

    def fetch(layer: Descriptor) -> None:
        told = counter(layer)
        repository.fetch_blob(layer, blobs, told)
        told.finish()

    run_all([lambda layer=layer: fetch(layer) for layer in missing], give_up)  # type: ignore[misc]
    return sum(layer.size for layer in missing)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What of an image is pulled, and who is told.

    Attributes:
        platform: the image to choose from an index; None for this machine's.
        all_platforms: whether everything below an index is pulled, attestations too.
        vertex: the vertex that events belong to.
    """

    platform: Platform | None = None
    all_platforms: bool = False
    vertex: str = "pull"


def pull(
    repository: Repository,
    reference: Reference,
    store: Store,
    observer: Observer,
    give_up: Callable[[], None],
    options: PullOptions = PullOptions(),
) -> PulledImage:
    """Bring an image into a store, whole, and name it there. Idempotent; the name is set last.

    Args:
        repository: where it is.
        reference: its name in the registry and in the store; a digest wins over a tag.
        store: where it goes; its session must hold blobs.
        observer: told of the bytes of each layer.
        give_up: makes transfers that are under way fail soon.
        options: what of it.

    Raises:
        RegistryError: it can't be had, or is not what its digests promise.
        InvalidImageError: a document is not valid.
        StoreError: the store can't be written.
    """
    documents = ImageDocuments(repository, store.blobs)
    root = documents.root(reference.digest or reference.tag)
    manifests = documents.all(root) if options.all_platforms else (documents.choose(root, options.platform),)
    layers = [layer for one in manifests for layer in StoredImage(store.blobs, one).manifest().layers]

    def counter(layer: Descriptor) -> ByteCounter:
        return ByteCounter(observer, options.vertex, str(layer.digest), layer.size)

    moved = fetch_layers(repository, store.blobs, layers, counter, give_up)
    store.images.set_(reference, root, time.time())
    return PulledImage(reference, root, manifests, moved)
