"""Which blobs the images of a store need, and the removal of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import CastoffError
from castoff.oci import mediatypes
from castoff.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore
    from castoff.store.directory import DirectoryStore
    from castoff.store.store import Store


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did.

    Attributes:
        removed: the blobs that are gone.
        freed: bytes that this freed.
        deferred: True where nothing was removed because another process uses the store's blobs; the next collection
            finds them.
    """

    removed: tuple[Digest, ...] = ()
    freed: int = 0
    deferred: bool = False


def reachable(store: Store, extra: Iterable[Descriptor] = ()) -> set[Digest]:
    """Return the digests of all blobs that the store's images, and `extra` descriptors, are made of."""
    found: set[Digest] = set()
    for record in store.images:
        _follow(store.blobs, record.descriptor, found)
    for descriptor in extra:
        _follow(store.blobs, descriptor, found)
    return found


def closure(blobs: BlobStore, descriptor: Descriptor) -> set[Digest]:
    """Return the digests of all blobs that one image is made of, as far as they can be read."""
    found: set[Digest] = set()
    _follow(blobs, descriptor, found)
    return found


def _follow(blobs: BlobStore, descriptor: Descriptor, found: set[Digest]) -> None:
    pending = [descriptor]
    while pending:
        current = pending.pop()
        if current.digest in found:
            continue
        found.add(current.digest)
        try:
            if current.media_type in mediatypes.INDEXES:
                pending += Index.parse(blobs.read(current.digest)).manifests
            elif current.media_type in mediatypes.MANIFESTS:
                manifest = Manifest.parse(blobs.read(current.digest))
                pending += (manifest.config, *manifest.layers)
                if manifest.subject:
                    pending.append(manifest.subject)
        except CastoffError:
            continue  # missing or damaged: nothing below it can be known


def collect(store: DirectoryStore, extra: Iterable[Descriptor] = (), keep: Iterable[Digest] = ()) -> CollectReport:
    """Remove the blobs that no image needs, unless another process is using the store. Idempotent.

    Args:
        store: the store; this process must not be building in it.
        extra: further manifests whose blobs stay.
        keep: further blobs that stay, such as a build cache's.

    Raises:
        StoreError: the store can't be written.
    """
    with store.collecting() as alone:
        if not alone:
            return CollectReport(deferred=True)
        needed = reachable(store, extra) | set(keep)
        unneeded = tuple(digest for digest in store.blobs if digest not in needed)
        return CollectReport(unneeded, store.blobs.delete_all(unneeded))
