"""Bases that come from registries: their documents when a plan asks for them, their layers when a step needs them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castoff.errors import BlobNotFoundError, RegistryError
from castoff.events import WarningEvent
from castoff.image.image import StoredImage, read_document
from castoff.image.pull import ImageDocuments
from castoff.oci import mediatypes
from castoff.oci.manifest import Index
from castoff.registry.failure import TEMPORARY, NotFoundError
from castoff.registry.transport import CanceledTransferError, ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.events import Observer
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.platform import Platform
    from castoff.oci.reference import Reference
    from castoff.ops.lazyblobs import LazyBlobs
    from castoff.registry.client import RegistryClient
    from castoff.registry.repository import Repository
    from castoff.store.directory import DirectoryStore

PullPolicy = Literal["missing", "always", "never"]
"""When a registry is asked for a base: where the store lacks it, each time, or not at all."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a build reaches registries.

    Attributes:
        client: gives the client, which is opened at the first call.
        policy: when it is asked.
        lazy: takes the layers that are left for later.
        observer: told where a registry could not be asked.
    """

    client: Callable[[], RegistryClient]
    policy: PullPolicy
    lazy: LazyBlobs
    observer: Observer


class RegistryBases:
    """Finds bases in registries for one build. Safe for several threads."""

    def __init__(self, store: DirectoryStore, access: Access) -> None:
        self._store = store
        self._access = access
        self._lock = threading.Lock()
        self._asked: dict[Reference, Descriptor] = {}

    def find(self, reference: Reference, known: Descriptor | None, platform: Platform) -> Descriptor | None:
        """Return what a reference names: what the store has, or what its registry gives; None where neither has it.

        Args:
            reference: the base.
            known: what the store has under that name.
            platform: what it is wanted for.

        Raises:
            RegistryError: the registry had to be asked, and refused or can't be reached.
        """
        if self._access.policy == "never":
            return known
        if known is not None and (self._access.policy == "missing" or reference.digest is not None):
            return known
        with self._lock:
            found = self._asked.get(reference)
            if found is None:
                found = self._asked[reference] = self._ask(reference, known, platform)
            return found

    def image(self, reference: Reference, root: Descriptor, platform: Platform) -> StoredImage:
        """Return the image for a platform, its documents in the store, its missing layers offered for later.

        Raises:
            BlobNotFoundError: none of its images is for the platform.
            RegistryError: a document had to be asked for, and can't be had.
            InvalidImageError: a document is not valid.
        """
        blobs = self._store.blobs
        try:
            image = StoredImage.open_(blobs, root, platform)
            image.config()
        except BlobNotFoundError:
            if self._access.policy == "never" or not self._may_be_elsewhere(root, platform):
                raise
            documents = ImageDocuments(self._repository(reference), blobs)
            image = StoredImage(blobs, documents.choose(root, platform))
        if self._access.policy != "never":
            self._offer(reference, image)
        return image

    def _offer(self, reference: Reference, image: StoredImage) -> None:
        layers = image.manifest().layers
        missing = [layer for layer in layers if self._store.blobs.size(layer.digest) != layer.size]
        if missing:
            self._access.lazy.offer(missing, self._repository(reference).fetch_blob)

    def _may_be_elsewhere(self, root: Descriptor, platform: Platform) -> bool:
        """Tell whether what the store lacks of an image can be its registry's to give."""
        from castoff.image.image import select

        if root.media_type in mediatypes.MANIFESTS or self._store.blobs.size(root.digest) is None:
            return True
        index = Index.parse(read_document(self._store.blobs, root))
        nested = any(entry.platform is None or entry.media_type in mediatypes.INDEXES for entry in index.manifests)
        return nested or select(index, platform) is not None

    def _ask(self, reference: Reference, known: Descriptor | None, platform: Platform) -> Descriptor:
        wanted = reference.digest or reference.tag
        try:
            repository = self._repository(reference)
            if known is not None:
                digest = repository.find_manifest(wanted)
                if digest is None:
                    raise NotFoundError(f"the registry has no image {reference.familiar} any more", status=404)
                if digest == known.digest:
                    return known
            documents = ImageDocuments(repository, self._store.blobs)
            root = documents.root(wanted)
            documents.choose(root, platform)
        except RegistryError as error:
            if known is None or not is_outage(error):
                raise
            self._access.observer.warning(
                WarningEvent(f"{reference.familiar} is taken from the store as it is: {error.message}")
            )
            return known
        self._store.images.set_(reference, root, time.time())
        return root

    def _repository(self, reference: Reference) -> Repository:
        return self._access.client().repository(reference)


def is_outage(error: RegistryError) -> bool:
    """Tell whether a registry did not answer, or not now, as against one that refused."""
    if isinstance(error, CanceledTransferError):
        return False
    return isinstance(error, ConnectionFailedError) or error.status in TEMPORARY
