"""What of a store could be removed: how large each thing is, when it was last used, and what stands on it."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from castoff.errors import CastoffError
from castoff.image.image import StoredImage, iter_manifests
from castoff.ops.filesystem import snapshot_name
from castoff.solve.cache import CacheRecord
from castoff.store.gc import closure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from castoff.oci.descriptor import Descriptor
    from castoff.snapshot.overlay import OverlaySnapshotter
    from castoff.store.directory import DirectoryStore

Kind = Literal["image", "snapshot", "cache-mount", "layer", "download", "blob", "record"]

_RECORD = re.compile(r"[0-9a-zA-Z_-]+")
_MAX_RECORD = 4 << 20
_MAX_DOCUMENT = 4 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be removed.

    Attributes:
        kind: what it is.
        name: of a snapshot or a cache mount; the digest of a layer; the path below the cache of others.
        size: bytes on the disk.
        used: when it was last used, in seconds since the epoch.
        path: its host path; "" where that says nothing.
        depth: of a snapshot, how many lie below it.
        orphan: whether nothing refers to it.
    """

    kind: Kind
    name: str
    size: int
    used: float
    path: str = ""
    depth: int = 0
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """A cache record: its host path, when it was last used, the snapshot and the layers' digests that it names."""

    path: str
    used: float
    snapshot: str
    layers: frozenset[str]


@dataclass(slots=True)
class Inventory:
    """What is in a store's build cache.

    Attributes:
        items: what can be removed.
        records: the cache records.
        strays: host paths of files among the records that are none.
        snapshots: the names of all snapshots, those that must stay among them.
        parents: of all snapshots, by name; "" for none.
        blobs: the digests of the layers that records name and that are in the store.
    """

    items: list[Item] = field(default_factory=list)
    records: list[Recorded] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)
    parents: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Bytes of all that can be removed."""
        return sum(item.size for item in self.items)


def take_inventory(
    store: DirectoryStore, snapshotter: OverlaySnapshotter, untagged: Collection[str] = (), *, everything: bool = False
) -> Inventory:
    """Return what is in a store's build cache.

    Args:
        store: the store; nobody else may be using it.
        snapshotter: that of its snapshots.
        untagged: digests of the manifests of images that count as gone.
        everything: whether downloads, and snapshots of named images, can be removed too.

    Raises:
        StoreError: the store can't be read.
    """
    inventory = Inventory()
    images = [record.descriptor for record in store.images if str(record.descriptor.digest) not in untagged]
    _read_records(inventory, f"{store.cache}/records")
    shipped = {str(digest) for descriptor in images for digest in closure(store.blobs, descriptor)}
    kept = _container_snapshots(store, snapshotter)
    if not everything:
        kept |= _image_snapshots(store, images)
    _add_snapshots(inventory, store, snapshotter, kept)
    _add_layers(inventory, store, shipped)
    _add_mounts(inventory, store)
    for folder in ("contexts", "explain/files", "explain/builds", *(("bases", "downloads") if everything else ())):
        _add_files(inventory, store, folder)
    _add_remotes(inventory, store)
    return inventory


def container_texts(root: str) -> list[str]:
    """Return the documents of a store's containers: what they name, of images and snapshots, is in use."""
    texts = []
    folder = os.path.join(root, "containers")
    for path in _files(folder):
        if path.endswith(".json"):
            try:
                with open(path, "rb") as file:
                    texts.append(file.read(_MAX_DOCUMENT).decode("utf-8", "replace"))
            except OSError:
                continue
    return texts


def disk_size(path: str) -> int:
    """Return the bytes that a folder's files take on the disk; hard links count once, and no link is followed."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
                    elif status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
        except OSError:
            continue
    return total


def _files(folder: str) -> Iterator[str]:
    """Yield the paths of the regular files one and two folders deep."""
    for parent, folders, names in os.walk(folder):
        if parent.removeprefix(folder).count("/") >= 1:
            folders.clear()
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _read_records(inventory: Inventory, folder: str) -> None:
    for path in _files(folder):
        try:
            used = os.stat(path).st_mtime
            with open(path, "rb") as file:
                record = CacheRecord.from_json(json.loads(file.read(_MAX_RECORD)))
        except OSError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            inventory.strays.append(path)
            continue
        if not _RECORD.fullmatch(os.path.basename(path)):
            inventory.strays.append(path)  # a temporary file of a castoff that was killed
            continue
        layers = frozenset(layer.digest for layer in record.layers.values())
        inventory.records.append(Recorded(path, used, record.snapshot, layers))


def _container_snapshots(store: DirectoryStore, snapshotter: OverlaySnapshotter) -> set[str]:
    texts = container_texts(store.root)
    if not texts:
        return set()
    return {name for name in snapshotter if any(name in text for text in texts)}


def _image_snapshots(store: DirectoryStore, images: Iterable[Descriptor]) -> set[str]:
    """Return the names that the snapshots of images' layers have, whether or not they exist."""
    names: set[str] = set()
    for descriptor in images:
        try:
            for manifest in iter_manifests(store.blobs, descriptor):
                here = ""
                for layer in StoredImage(store.blobs, manifest).layers():
                    here = snapshot_name(here, str(layer.diff_id))
                    names.add(here)
        except CastoffError:
            continue  # damaged: nothing can be unpacked of it
    return names


def _add_snapshots(
    inventory: Inventory, store: DirectoryStore, snapshotter: OverlaySnapshotter, kept: set[str]
) -> None:
    parents = inventory.parents
    used: dict[str, float] = {}
    for name in snapshotter:
        inventory.snapshots.add(name)
        parents[name] = snapshotter.parent(name) or ""
    named = {record.snapshot for record in inventory.records}
    for record in inventory.records:
        if record.snapshot in parents:
            used[record.snapshot] = max(used.get(record.snapshot, 0.0), record.used)
    depths = {name: _depth(name, parents) for name in parents}
    stays = set(kept) & set(parents)
    # A snapshot is used, and stays, as long as one that stands on it does: the topmost are looked at first.
    live = {name for name in parents if name in named} | stays
    for name in sorted(parents, key=lambda each: -depths[each]):
        parent = parents[name]
        used.setdefault(name, _changed(f"{store.snapshots}/{name}"))
        if parent not in parents:
            continue
        used[parent] = max(used.get(parent, 0.0), used[name])
        if name in stays:
            stays.add(parent)
        if name in live:
            live.add(parent)
    for name in parents:
        if name not in stays:
            path = f"{store.snapshots}/{name}"
            size = disk_size(path)
            inventory.items.append(Item("snapshot", name, size, used[name], path, depths[name], name not in live))


def _depth(name: str, parents: dict[str, str]) -> int:
    depth = 0
    while (name := parents.get(name, "")) and depth < len(parents):
        depth += 1
    return depth


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _add_layers(inventory: Inventory, store: DirectoryStore, shipped: set[str]) -> None:
    """Add the layers that only the cache has."""
    used: dict[str, float] = {}
    for record in inventory.records:
        for layer in record.layers:
            used[layer] = max(used.get(layer, 0.0), record.used)
    for digest in store.blobs:
        name = str(digest)
        if name in used:
            inventory.blobs.add(name)
            if name not in shipped:
                inventory.items.append(Item("layer", name, store.blobs.size(digest) or 0, used[name]))


def _add_mounts(inventory: Inventory, store: DirectoryStore) -> None:
    folder = f"{store.root}/cache-mounts"
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for entry in entries:
        used = max(_changed(entry.path), _changed(entry.path + ".lock"))
        inventory.items.append(Item("cache-mount", entry.name, disk_size(entry.path), used, entry.path))


def _add_files(inventory: Inventory, store: DirectoryStore, folder: str) -> None:
    top = f"{store.cache}/{folder}"
    for path in _files(top):
        status = os.stat(path)
        name = f"{folder}/{os.path.relpath(path, top)}"
        used = max(status.st_mtime, status.st_atime)
        inventory.items.append(Item("download", name, status.st_blocks * 512, used, path))


def _add_remotes(inventory: Inventory, store: DirectoryStore) -> None:
    """Add what was fetched of remote build contexts."""
    top = f"{store.cache}/remote"
    for group in _entries(top):
        for entry in _entries(group.path) if group.is_dir(follow_symlinks=False) else (group,):
            status = entry.stat(follow_symlinks=False)
            size = disk_size(entry.path) if entry.is_dir(follow_symlinks=False) else status.st_blocks * 512
            used = max(status.st_mtime, status.st_atime)
            name = f"remote/{os.path.relpath(entry.path, top)}"
            inventory.items.append(Item("download", name, size, used, entry.path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
