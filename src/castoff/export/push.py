"""Pushing images: what a registry lacks of them, and last of all the names.

Blobs come first, then the manifests of single images, then what names them, so that nobody ever finds a name whose
image is not whole. The bytes of manifests and layers go as they are in the store: an image that was pulled goes back
with its digests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from castoff.errors import BlobNotFoundError, ExportError, InvalidImageError, UsageError
from castoff.events import NullObserver, StatusEvent, WarningEvent
from castoff.export.exporter import ExportReport
from castoff.image.image import MAX_DEPTH, MAX_MANIFESTS, read_document
from castoff.image.pull import ByteCounter
from castoff.oci import mediatypes
from castoff.oci.manifest import Index, Manifest
from castoff.registry.parallel import run_all
from castoff.registry.upload import BlobSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from castoff.events import Observer
    from castoff.export.exporter import ImageResult
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.registry.client import RegistryClient
    from castoff.registry.repository import Repository
    from castoff.store.blobs import BlobStore
    from castoff.store.store import Store


@dataclass(frozen=True, slots=True)
class PushedImage:
    """An image that was pushed under one name.

    Attributes:
        reference: the name.
        descriptor: what it names in the registry now.
        uploaded: how many blobs were uploaded.
        mounted: how many the registry took from others of its repositories.
        present: how many were there before.
    """

    reference: Reference
    descriptor: Descriptor
    uploaded: int = 0
    mounted: int = 0
    present: int = 0


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How an image is pushed, and who is told.

    Attributes:
        vertex: the vertex that events belong to.
        homes: by the digest of a blob, names of repositories of the same registry that may have it.
        observer: told of the bytes.
    """

    vertex: str = "push"
    homes: Callable[[Reference], Mapping[Digest, tuple[str, ...]]] = lambda _reference: {}
    observer: Observer = NullObserver()  # noqa: RUF009  (it has no state)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What belongs to an image: documents, each after those that it names, and blobs, each once."""

    documents: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]


class Pusher:
    """Pushes images of one blob store."""

    def __init__(self, client: RegistryClient, blobs: BlobStore, options: PushOptions = PushOptions()) -> None:
        """Take the client, the store, and what else there is to say."""
        self._client = client
        self._blobs = blobs
        self._options = options

    def push(self, descriptor: Descriptor, references: Iterable[Reference]) -> list[PushedImage]:
        """Push an image under some names. Idempotent; a name is set when all that it needs is there.

        Of an index, images that are not in the store must be in the repository. Where they are not, and the store has
        a single one, that one is pushed instead, and a warning says so.

        Args:
            descriptor: a manifest, or an index.
            references: the names; one with a digest must be of that digest.

        Raises:
            RegistryError: the registry refuses, or can't be reached.
            BlobNotFoundError: the store lacks a blob, and the registry too.
            InvalidImageError: a document is not valid.
        """
        groups: dict[tuple[str, str], list[Reference]] = {}
        for reference in references:
            groups.setdefault((reference.registry, reference.repository), []).append(reference)
        return [pushed for group in groups.values() for pushed in self._group(descriptor, group)]

    def _group(self, descriptor: Descriptor, references: Sequence[Reference]) -> Iterator[PushedImage]:
        """Push an image to one repository, under one name after the other."""
        first = references[0]
        repository = self._client.repository(first, push=True)
        pushed = self._whole(descriptor, first, repository)
        for reference in references:
            if reference.digest is not None and reference.digest != pushed.digest:
                raise UsageError(
                    f"the image {pushed.digest} can't be pushed as {reference.familiar}, which names another one",
                    hint="name it by a tag",
                )
        plan = self._plan(pushed)
        homes = self._options.homes(first)
        counts = {"exists": 0, "mounted": 0, "uploaded": 0}

        def bring(blob: Descriptor) -> None:
            kind = "config" if blob.media_type in mediatypes.CONFIGS else "layer"
            name = f"pushing {kind} {blob.digest}"
            counter = ByteCounter(self._options.observer, self._options.vertex, name, blob.size)
            source = BlobSource(blob, partial(self._blobs.open_, blob.digest))
            result = repository.put_blob(source, counter, homes.get(blob.digest, ()))
            counts[result.how] += 1
            counter.finish()

        run_all([partial(bring, blob) for blob in plan.blobs], self._client.cancel)
        for document in plan.documents[:-1]:
            self._put(repository, document, document.digest)
        for reference in references:
            self._put(repository, pushed, reference.tag or pushed.digest)
            self._tell(f"pushing manifest for {reference}@{pushed.digest}")
            yield PushedImage(reference, pushed, counts["uploaded"], counts["mounted"], counts["exists"])

    def _put(self, repository: Repository, document: Descriptor, wanted: str | Digest) -> None:
        repository.put_manifest(read_document(self._blobs, document), document.media_type, wanted)

    def _tell(self, name: str) -> None:
        import time

        self._options.observer.status(StatusEvent(self._options.vertex, name, time.time(), done=True))

    def _whole(self, descriptor: Descriptor, reference: Reference, repository: Repository) -> Descriptor:
        """Return what can be pushed: the image itself, or the only part of its index that there is."""
        if descriptor.media_type not in mediatypes.INDEXES:
            return descriptor
        absent = [entry for entry in self._leaves(descriptor, 0) if self._blobs.size(entry.digest) is None]
        lacking = [entry for entry in absent if repository.find_manifest(entry.digest) is None]
        if not lacking:
            return descriptor
        entries = [entry for entry in self._leaves(descriptor, 0) if self._blobs.size(entry.digest) is not None]
        present = [entry for entry in entries if entry.media_type in mediatypes.MANIFESTS]
        hint = "pull all of it first (castoff pull --all-platforms), or push one image with --platform"
        if reference.digest is not None or len(present) != 1:
            raise ExportError(
                f"{len(lacking)} of the images of {descriptor.digest} are neither in the store nor in"
                f" {repository.name}",
                hint=hint,
            )
        self._options.observer.warning(
            WarningEvent(
                f"{reference.familiar}: the store has only the image for {present[0].platform or 'one platform'} of the"
                f" index {descriptor.digest}, so that image alone is pushed; {hint}"
            )
        )
        return replace(present[0], annotations=())

    def _leaves(self, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
        """Yield what an index names, and what indexes in it name, as far as the store has them."""
        if depth > MAX_DEPTH:
            raise InvalidImageError(f"the indexes of {descriptor.digest} are nested more than {MAX_DEPTH} deep")
        for entry in Index.parse(read_document(self._blobs, descriptor)).manifests:
            if entry.media_type in mediatypes.INDEXES and self._blobs.size(entry.digest) is not None:
                yield from self._leaves(entry, depth + 1)
            yield entry

    def _plan(self, root: Descriptor) -> _Plan:
        documents: dict[Digest, Descriptor] = {}
        blobs: dict[Digest, Descriptor] = {}
        self._gather(root, documents, blobs, 0)
        return _Plan(tuple(documents.values()), tuple(blobs.values()))

    def _gather(
        self, current: Descriptor, documents: dict[Digest, Descriptor], blobs: dict[Digest, Descriptor], depth: int
    ) -> None:
        if current.digest in documents or (depth and self._blobs.size(current.digest) is None):
            return  # what the store lacks is in the repository: that was seen to
        if depth > MAX_DEPTH or len(documents) > MAX_MANIFESTS:
            raise InvalidImageError(f"the index of {current.digest} is nested too deeply, or has too many images")
        if current.media_type in mediatypes.INDEXES:
            for entry in Index.parse(read_document(self._blobs, current)).manifests:
                self._gather(entry, documents, blobs, depth + 1)
        elif current.media_type in mediatypes.MANIFESTS:
            manifest = Manifest.parse(read_document(self._blobs, current))
            for blob in (*manifest.layers, manifest.config):
                if not (blob.media_type in mediatypes.FOREIGN_LAYERS and blob.urls):
                    blobs.setdefault(blob.digest, blob)
        documents[current.digest] = current


def homes_in(store: Store, target: Reference) -> dict[Digest, tuple[str, ...]]:
    """Return, by digest, the repositories of a target's registry that may hold a blob: those of the store's images.

    Only images that the registry may have under that name count; it is asked, and a wrong guess costs nothing.
    """
    found: dict[Digest, tuple[str, ...]] = {}
    for record in store.images:
        own = record.reference
        if own is None or own.registry != target.registry or own.repository == target.repository:
            continue
        for digest in _blobs_of(store.blobs, record.descriptor, 0):
            names = found.get(digest, ())
            if own.repository not in names:
                found[digest] = (*names, own.repository)
    return found


def _blobs_of(blobs: BlobStore, descriptor: Descriptor, depth: int) -> Iterator[Digest]:
    if depth > MAX_DEPTH or blobs.size(descriptor.digest) is None:
        return
    try:
        if descriptor.media_type in mediatypes.INDEXES:
            for entry in Index.parse(read_document(blobs, descriptor)).manifests:
                yield from _blobs_of(blobs, entry, depth + 1)
        elif descriptor.media_type in mediatypes.MANIFESTS:
            for layer in Manifest.parse(read_document(blobs, descriptor)).layers:
                yield layer.digest
    except (InvalidImageError, BlobNotFoundError):
        return


class RegistryExporter:
    """Pushes images to where their references say."""

    def __init__(self, client: RegistryClient, store: Store) -> None:
        self._client = client
        self._store = store

    def export(self, result: ImageResult, observer: Observer, vertex: str = "") -> ExportReport:
        """Push an image under all of its references; see `Exporter`.

        Raises:
            RegistryError: a registry refuses, or can't be reached.
        """
        if not result.references:
            raise UsageError(
                "an image that is to be pushed needs a reference", hint="give one with -t REGISTRY/NAME:TAG"
            )
        options = PushOptions(vertex, lambda reference: homes_in(self._store, reference), observer)
        Pusher(self._client, result.blobs, options).push(result.descriptor, result.references)
        names = ", ".join(str(reference) for reference in result.references)
        return ExportReport(names, result.descriptor.digest, 0)
