"""Images from and to registries: what ``castoff pull`` and ``castoff push`` do, for programs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.errors import CastoffError, UsageError
from castoff.events import NullObserver, VertexEvent, VertexState
from castoff.export.push import PushedImage, Pusher, PushOptions, homes_in
from castoff.image.pull import PulledImage, PullOptions
from castoff.image.pull import pull as pull_image
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.cancellation import Cancellation
    from castoff.events import Observer
    from castoff.registry.client import RegistryClient
    from castoff.registry.config import Overrides
    from castoff.registry.credentials import Keychain

__all__ = ["PullRequest", "PulledImage", "PushRequest", "PushedImage", "open_client", "pull", "push"]


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull.

    Attributes:
        store: folder of the store; it is made where there is none.
        reference: such as ``ghcr.io/o/r:tag``; where it has a digest, that counts.
        platform: such as ``linux/arm64``; "" for this machine's.
        all_platforms: whether everything below an index is pulled.
        all_tags: whether every tag of the repository is pulled.
        registries: what this call says of registries, before the caller's files.
        environment: pairs: the caller's, for proxies, and for where files of credentials and registries are.
        keychain: credentials to use instead of those in files; None for the files.
    """

    store: str
    reference: str
    platform: str = ""
    all_platforms: bool = False
    all_tags: bool = False
    registries: Overrides | None = None
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    keychain: Keychain | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What to push.

    Attributes:
        store: folder of the store.
        references: names of images in the store, and of where they go.
        image: reference or id of the image that goes there under all of these names; "" for each name's own.
        platform: of an index, push only the image for this platform; "" for all of it.
        all_tags: whether all tags of the references' repositories that the store has are pushed.
        registries: what this call says of registries, before the caller's files.
        environment: pairs: the caller's, for proxies, and for where files of credentials and registries are.
        keychain: credentials to use instead of those in files; None for the files.
    """

    store: str
    references: tuple[str, ...]
    image: str = ""
    platform: str = ""
    all_tags: bool = False
    registries: Overrides | None = None
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    keychain: Keychain | None = field(default=None, repr=False)


def open_client(request: PullRequest | PushRequest) -> RegistryClient:
    """Return the client that a request asks for.

    Raises:
        RegistryError: a file of configuration can't be read.
    """
    from castoff.registry.client import RegistryClient

    return RegistryClient.open_(dict(request.environment), request.registries, request.keychain)


def pull(
    request: PullRequest, observer: Observer | None = None, cancellation: Cancellation | None = None
) -> list[PulledImage]:
    """Bring images into a store, whole, and name them there. Blocks until it is done; idempotent.

    Args:
        request: what to pull.
        observer: told of the bytes that come; called from several threads.
        cancellation: ends it from another thread.

    Raises:
        InvalidReferenceError: the reference, or the platform, is not well formed.
        RegistryError: the registry refuses, can't be reached, or gives what its digests do not promise.
        StoreError: the store can't be written.
        CanceledError: it was given up.
    """
    told = observer or NullObserver()
    reference = Reference.parse(request.reference)
    if request.all_tags and (reference.digest is not None or ":" in request.reference.rpartition("/")[2]):
        raise UsageError(f"{request.reference} has a tag or a digest, and all tags are to be pulled")
    if request.platform and request.all_platforms:
        raise UsageError("one platform and all of them can't be pulled at once")
    platform = Platform.parse(request.platform) if request.platform else None
    with (
        DirectoryStore.open_(request.store) as store,
        open_client(request) as client,
        _canceling(cancellation, client),
    ):
        store.session()
        repository = client.repository(reference)
        wanted = [reference]
        if request.all_tags:
            wanted = [replace(reference, tag=tag) for tag in repository.list_tags()]
        pulled = []
        for one in wanted:
            with _vertex(told, f"pull {one}", f"pulling {one}") as vertex:
                options = PullOptions(platform, request.all_platforms, vertex)
                pulled.append(pull_image(repository, one, store, told, client.cancel, options))
        return pulled


def push(
    request: PushRequest, observer: Observer | None = None, cancellation: Cancellation | None = None
) -> list[PushedImage]:
    """Push images to where their references say. Blocks until it is done; idempotent.

    Args:
        request: what to push.
        observer: told of the bytes that go; called from several threads.
        cancellation: ends it from another thread.

    Raises:
        InvalidReferenceError: a reference, or the platform, is not well formed.
        BlobNotFoundError: the store has no such image, or lacks a blob of it that the registry lacks too.
        RegistryError: the registry refuses, or can't be reached.
        CanceledError: it was given up.
    """
    told = observer or NullObserver()
    with (
        DirectoryStore.open_(request.store, create=False) as store,
        open_client(request) as client,
        _canceling(cancellation, client),
    ):
        store.session()
        pushed = []
        for source, reference in _targets(request, store):
            descriptor = store.images.find(source).descriptor
            if request.platform:
                from castoff.image.image import resolve

                descriptor = resolve(store.blobs, descriptor, Platform.parse(request.platform))
            with _vertex(told, f"push {reference}", f"pushing {reference}") as vertex:
                options = PushOptions(vertex, lambda target: homes_in(store, target), told)
                pushed += Pusher(client, store.blobs, options).push(descriptor, [reference])
        return pushed


def _targets(request: PushRequest, store: DirectoryStore) -> list[tuple[str, Reference]]:
    """Return, for each name, what of the store goes there."""
    named = [Reference.parse(text) for text in request.references]
    if not request.all_tags:
        return [(request.image or str(reference), reference) for reference in named]
    if request.image:
        raise UsageError("all tags of a repository can't be pushed from one image")
    own = [record.reference for record in store.images if record.reference is not None]
    places = {(reference.registry, reference.repository) for reference in named}
    found = [reference for reference in own if (reference.registry, reference.repository) in places]
    if not found:
        names = ", ".join(request.references)
        raise UsageError(f"the store has no tag of {names}", hint="castoff images lists what it has")
    return [(str(reference), reference) for reference in found]


@contextlib.contextmanager
def _canceling(cancellation: Cancellation | None, client: RegistryClient) -> Iterator[None]:
    if cancellation is None:
        yield
        return
    with cancellation.ending(client.cancel):
        yield


@contextlib.contextmanager
def _vertex(observer: Observer, vertex: str, name: str) -> Iterator[str]:
    """Tell the beginning and the end of one image's transfer."""
    observer.vertex(VertexEvent(vertex, name, VertexState.STARTED, time.time()))
    try:
        yield vertex
    except CastoffError as error:
        observer.vertex(VertexEvent(vertex, name, VertexState.FAILED, time.time(), error.message))
        raise
    observer.vertex(VertexEvent(vertex, name, VertexState.DONE, time.time()))
