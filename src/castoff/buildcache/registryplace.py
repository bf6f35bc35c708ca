"""A cache in a registry: ``type=registry``, and images that have their cache in them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from castoff.buildcache.document import EMPTY, CacheDocument, manifest_of
from castoff.buildcache.place import FoundCache, check_config, inline_document
from castoff.errors import RegistryError, UsageError
from castoff.image.image import select
from castoff.oci import mediatypes
from castoff.oci.manifest import Index, Manifest
from castoff.registry.documents import MAX_MANIFEST
from castoff.registry.failure import NotFoundError
from castoff.registry.parallel import run_all
from castoff.registry.upload import BlobSource
from castoff.store.memory import MemoryBlobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.buildcache.place import Progress
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.platform import Platform
    from castoff.oci.reference import Reference
    from castoff.registry.client import RegistryClient
    from castoff.registry.repository import Repository
    from castoff.store.blobs import BlobStore


class RegistryPlace:
    """Keeps a cache in a registry under a reference."""

    def __init__(self, client: RegistryClient, reference: Reference, platform: Platform) -> None:
        """Take the client, the reference, and the platform that an index of images is searched for."""
        self._client = client
        self._reference = reference
        self._platform = platform

    def load(self) -> FoundCache | None:
        """Return what is there: a cache, or an image that has one in it; None where there is nothing.

        It costs the fetch of a manifest and, for a cache, of its document.
        """
        repository = self._client.repository(self._reference)
        manifest = self._manifest(repository)
        if manifest is None:
            return None
        if manifest.config.media_type in mediatypes.CONFIGS:
            document = inline_document(manifest.annotations)
            if document is not None:
                return FoundCache(document, manifest.layers)
        check_config(manifest, str(self._reference))
        held = MemoryBlobStore()
        repository.fetch_blob(manifest.config, held)
        data = held.read(manifest.config.digest, manifest.config.size)
        return FoundCache(CacheDocument.parse(data), manifest.layers)

    def _manifest(self, repository: Repository) -> Manifest | None:
        """Return the manifest; of an index, that for the platform."""
        wanted: str | Digest = self._reference.digest or self._reference.tag
        try:
            document = repository.get_manifest(wanted)
        except NotFoundError:
            return None
        if document.descriptor.media_type in mediatypes.INDEXES:
            entry = select(Index.parse(document.data), self._platform)
            if entry is None or entry.media_type not in mediatypes.MANIFESTS:
                return None
            document = repository.get_manifest(entry.digest)
        return Manifest.parse(document.data)

    def fetch(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None]) -> None:
        """Fetch one of its blobs into a store, verified."""
        self._client.repository(self._reference).fetch_blob(descriptor, blobs, moved)

    def save(self, document: CacheDocument, ensure: Callable[[Descriptor], BlobStore], told: Progress) -> None:
        """Push a cache: its blobs first, those only that the registry lacks; then the manifest under the tag."""
        if self._reference.digest is not None:
            raise UsageError(f"{self._reference}: a new cache can't be named by a digest", hint="give it a tag")
        repository = self._client.repository(self._reference, push=True)
        config = document.to_bytes()
        manifest = manifest_of(document, config)
        data = manifest.to_bytes()
        if len(data) > MAX_MANIFEST:
            raise RegistryError(
                f"the build cache for {self._reference} has more layers than a manifest can list",
                hint="write mode=min, or type=local",
            )
        pushes = [partial(self._push, repository, layer, ensure, told) for layer in document.descriptors()]
        if pushes:
            run_all(pushes, self._client.cancel)
        small = MemoryBlobStore()
        for value, descriptor in ((config, manifest.config), (EMPTY, manifest.layers[0])):
            if value is config or descriptor.media_type == mediatypes.OCI_EMPTY:
                digest = small.add(value)
                repository.put_blob(BlobSource(descriptor, partial(small.open_, digest)))
        repository.put_manifest(data, manifest.media_type, self._reference.tag)

    def _push(
        self,
        repository: Repository,
        descriptor: Descriptor,
        ensure: Callable[[Descriptor], BlobStore],
        told: Progress,
    ) -> None:
        name, size = f"pushing {descriptor.digest}", descriptor.size
        if repository.has_blob(descriptor.digest) is not None:
            told(name, size, size)
            return
        done = 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            told(name, done, size)

        repository.put_blob(BlobSource(descriptor, lambda: ensure(descriptor).open_(descriptor.digest)), moved)
