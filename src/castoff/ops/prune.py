"""Frees space in a store: images without a name, the build cache, and what nothing needs any more.

While it works nobody else uses the store: where a build, or anything else that holds blobs, is running, nothing is
removed. The generation is counted up first, so that no recorded build is taken for unchanged; cache records go before
what they name, so that a stop in between leaves steps that run again, and nothing that is taken for what it is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.oci.digest import Digest
from castoff.ops.pruneitems import Inventory, Item, Kind, container_texts, take_inventory
from castoff.store.gc import closure
from castoff.store.locking import try_lock
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from castoff.snapshot.overlay import OverlaySnapshotter
    from castoff.store.directory import DirectoryStore


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What to remove.

    Attributes:
        everything: also what saves downloads (packages, assembled bases) and the unpacked layers of named images.
        keep_bytes: how much of the build cache may stay, the last used of it; None for none of it.
        before: only what was last used before this time, in seconds since the epoch; None for whenever.
    """

    everything: bool = False
    keep_bytes: int | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that is gone: its kind, its name, and its bytes on the disk."""

    kind: Kind
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a pruning did.

    Attributes:
        removed: what is gone.
        kept: bytes of the build cache that stay.
        refused: what the system would not let go, as host paths.
        deferred: True where nothing was removed because another process uses the store.
    """

    removed: tuple[Removed, ...] = ()
    kept: int = 0
    refused: tuple[str, ...] = ()
    deferred: bool = False

    @property
    def freed(self) -> int:
        """Bytes that this freed."""
        return sum(item.size for item in self.removed)


def prune(store: DirectoryStore, snapshotter: OverlaySnapshotter, request: PruneRequest) -> PruneReport:
    """Remove from a store what a request says. Idempotent.

    Named images, containers and volumes stay, and so does what they stand on.

    Args:
        store: the store; this process must not be building in it.
        snapshotter: that of the store's snapshots.
        request: what to remove.

    Raises:
        StoreError: the store can't be read or written.
    """
    with store.collecting() as alone:
        if not alone:
            return PruneReport(deferred=True)
        return _Pruning(store, snapshotter, request).run()


class _Pruning:
    """One pruning, while the store is ours alone."""

    def __init__(self, store: DirectoryStore, snapshotter: OverlaySnapshotter, request: PruneRequest) -> None:
        self._store = store
        self._snapshotter = snapshotter
        self._request = request
        self._removed: list[Removed] = []
        self._refused: list[str] = []

    def run(self) -> PruneReport:
        store = self._store
        untagged = self._untagged()
        inventory = take_inventory(store, self._snapshotter, untagged, everything=self._request.everything)
        chosen = choose(inventory, self._request)
        names = {(item.kind, item.name) for item in chosen}
        records = self._dead_records(inventory, names)
        needed = self._needed_blobs(inventory, names, records, untagged)
        blobs = [digest for digest in store.blobs if str(digest) not in needed]
        if not (untagged or chosen or records or blobs):
            return PruneReport(kept=inventory.total)
        store.bump_generation()
        for digest in untagged:
            if store.images.remove_digest(Digest.parse(digest)):
                self._removed.append(Removed("image", digest, 0))
        for path in records:
            self._unlink(Item("record", os.path.basename(path), os.path.getsize(path), 0, path))
        self._forget_builds()
        for item in chosen:
            self._remove(item)
        self._remove_blobs(chosen, blobs)
        kept = inventory.total - sum(item.size for item in chosen)
        return PruneReport(tuple(self._removed), kept, tuple(self._refused))

    def _untagged(self) -> list[str]:
        """Return the digests of the manifests that no name leads to; those of containers are not among them."""
        texts = container_texts(self._store.root)
        before = self._request.before
        found = []
        for record in self._store.images:
            digest = record.descriptor.digest
            if record.reference is not None or (before is not None and record.created >= before):
                continue
            if not any(digest.hex in text for text in texts):
                found.append(str(digest))
        return found

    def _dead_records(self, inventory: Inventory, names: set[tuple[Kind, str]]) -> list[str]:
        """Return the paths of the cache records that go: all, or those that nothing is left of."""
        request = self._request
        if request.keep_bytes is None and request.before is None:
            return [record.path for record in inventory.records] + inventory.strays
        dead = []
        for record in inventory.records:
            has_snapshot = record.snapshot in inventory.snapshots and ("snapshot", record.snapshot) not in names
            has_layer = any(layer in inventory.blobs and ("layer", layer) not in names for layer in record.layers)
            if not has_snapshot and not has_layer:
                dead.append(record.path)
        return dead + inventory.strays

    def _needed_blobs(
        self, inventory: Inventory, names: set[tuple[Kind, str]], dead: Sequence[str], untagged: Sequence[str]
    ) -> set[str]:
        """Return the digests of the blobs that stay: the images', and those of cache records that stay."""
        gone = set(untagged)
        needed: set[str] = set()
        for image in self._store.images:
            if str(image.descriptor.digest) not in gone:
                needed |= {str(digest) for digest in closure(self._store.blobs, image.descriptor)}
        lost = set(dead)
        for record in inventory.records:
            if record.path not in lost:
                needed |= {layer for layer in record.layers if ("layer", layer) not in names}
        return needed

    def _forget_builds(self) -> None:
        """Remove the recorded outcomes of whole builds, which no longer hold, and notes of images that are gone."""
        cache = self._store.cache
        ids = image_ids(self._store)
        for folder in ("noop", "builds"):
            with contextlib.suppress(OSError):
                for entry in os.scandir(f"{cache}/{folder}"):
                    if folder == "noop" or entry.name not in ids:
                        with contextlib.suppress(OSError):
                            os.unlink(entry.path)

    def _remove(self, item: Item) -> None:
        if item.kind == "snapshot":
            self._snapshotter.remove(item.name)
            self._removed.append(Removed("snapshot", item.name, item.size))
        elif item.kind == "cache-mount":
            self._remove_mount(item)
        elif item.kind == "download":
            self._unlink(item)

    def _remove_mount(self, item: Item) -> None:
        try:
            lock = os.open(item.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            self._refused.append(item.path)
            return
        try:
            if not try_lock(lock, fcntl.LOCK_EX) or not remove_tree(item.path):
                self._refused.append(item.path)
                return
            self._removed.append(Removed("cache-mount", item.name, item.size))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(item.path + ".owners")
            os.unlink(item.path + ".lock")
        finally:
            os.close(lock)

    def _unlink(self, item: Item) -> None:
        if remove_tree(item.path):
            self._removed.append(Removed(item.kind, item.name, item.size))
        else:
            self._refused.append(item.path)

    def _remove_blobs(self, chosen: Iterable[Item], blobs: Sequence[Digest]) -> None:
        layers = {item.name for item in chosen if item.kind == "layer"}
        sizes = [(digest, self._store.blobs.size(digest) or 0) for digest in blobs]
        self._store.blobs.delete_all(blobs)
        for digest, size in sizes:
            self._removed.append(Removed("layer" if str(digest) in layers else "blob", str(digest), size))


def choose(inventory: Inventory, request: PruneRequest) -> list[Item]:
    """Return what of the build cache goes, in an order in which it can: the longest unused first, children first.

    What nothing refers to goes whatever the request says.
    """
    items = sorted(inventory.items, key=lambda item: (item.used, -item.depth, item.name))
    left = inventory.total
    chosen: list[Item] = []
    for item in items:
        if not item.orphan:
            if request.before is not None and item.used >= request.before:
                continue
            if request.keep_bytes is not None and left <= request.keep_bytes:
                continue
        chosen.append(item)
        left -= item.size
    kept = {item.name for item in inventory.items if item.kind == "snapshot"} - {item.name for item in chosen}
    # A snapshot that another stands on stays, whatever was chosen.
    needed: set[str] = set()
    for name in kept:
        below = inventory.parents.get(name)
        while below and below not in needed:
            needed.add(below)
            below = inventory.parents.get(below)
    return [item for item in chosen if item.kind != "snapshot" or item.name not in needed]


def image_ids(store: DirectoryStore) -> set[str]:
    """Return the hex digests of the configs of a store's images, and of what lists several of them."""
    from castoff.errors import CastoffError
    from castoff.image.image import StoredImage, iter_manifests

    found: set[str] = set()
    for record in store.images:
        found.add(record.descriptor.digest.hex)
        with contextlib.suppress(CastoffError):
            for manifest in iter_manifests(store.blobs, record.descriptor):
                found.add(StoredImage(store.blobs, manifest).config_digest().hex)
    return found
