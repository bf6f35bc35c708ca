"""File systems as results of steps: known by name, made only when something needs their files.

A step's result can be there in up to three forms, and each is made from another when it is asked for: the changes in
memory (COPY, WORKDIR), a snapshot (what RUN wrote, what a later RUN stands on), a compressed layer (what an image
needs). A runtime stage that only copies therefore never gets a snapshot, and a builder stage never a layer.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.errors import ContextError, DigestMismatchError, InvalidImageError, StoreError
from castoff.events import VertexState
from castoff.fs.changes import Added, Opaque, diff, iter_changes
from castoff.fs.inplace import InPlaceWriter
from castoff.fs.union import EntryLayer, UnionTree
from castoff.layer.apply import apply_layer, apply_to
from castoff.layer.compression import Compression, open_decompressed
from castoff.layer.create import LayerOptions, write_layer
from castoff.oci.digest import Digest
from castoff.snapshot.materialise import apply_changes, write_changes
from castoff.solve.cache import CacheRecord, LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from castoff.fs.changes import Change
    from castoff.layer.apply import ApplyInfo
    from castoff.layer.tarreader import Readable
    from castoff.ops.select import Request
    from castoff.ops.sources import FileSystemSource
    from castoff.ops.workspace import LayerVariant, Workspace
    from castoff.snapshot.snapshotter import ActiveSnapshot
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress


def snapshot_name(parent: str, content: str) -> str:
    """Return the name of the snapshot that `content` (a cache key or a diff_id) gives on top of `parent`."""
    digest = hashlib.sha256(f"{parent}\0{content}".encode()).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms in which a step's result is known.

    Attributes:
        name: name of its snapshot, whether or not that exists; None derives it from the parent's name and the key.
        changes: gives the changes against the parent, where they can be had without a snapshot.
        layers: the compressed layers that are known, by variant; "" is a base's own, whatever the variant.
        set_times: whether a layer made of it has all its times set, not only clamped.
        present: whether its snapshot is known to exist.
        ready: whether the changes can be had without unpacking or fetching anything; None where they always can.
        lasting: whether its name follows from what it holds, so that it is the same whenever it is made.
    """

    name: str | None = None
    changes: Callable[[], tuple[Change, ...]] | None = None
    layers: Mapping[str, LayerRecord] = field(default_factory=dict)
    set_times: bool = False
    present: bool = False
    lasting: bool = False
    ready: Callable[[], bool] | None = None


class FileSystem:
    """The file system that a vertex leaves. Immutable to its users, safe for several threads.

    Attributes:
        parent: the one that it stands on; None for the empty one.
        key: the cache key of the step; the empty one and the layers of bases have keys too.
        name: name of its snapshot, whether or not that exists; "" for the empty one.
    """

    def __init__(self, workspace: Workspace, parent: FileSystem | None, key: CacheKey, forms: Forms) -> None:
        self._workspace = workspace
        self._changes = forms.changes
        self._layers = dict(forms.layers)
        self._set_times = forms.set_times
        self._lock = threading.RLock()
        self._tree: UnionTree | None = None
        self._present = forms.present
        self._lasting = forms.lasting
        self._ready = forms.ready
        self._held: tuple[Change, ...] | None = None
        self._progress: VertexProgress | None = None
        self.parent = parent
        self.key = key
        below = parent.name if parent else ""
        self.name: str = snapshot_name(below, key) if forms.name is None else forms.name

    @classmethod
    def empty(cls, workspace: Workspace, key: CacheKey) -> FileSystem:
        """Return the empty file system."""
        return cls(workspace, None, key, Forms(name=""))

    def with_nothing(self) -> FileSystem:
        """Return a file system on top of this one that changes nothing."""
        return FileSystem(self._workspace, self, f"{self.key} and nothing", Forms(changes=tuple))

    @property
    def is_empty_root(self) -> bool:
        """Whether it is the empty one, which has no layer."""
        return not self.name

    def own_chain(self) -> Iterator[FileSystem]:
        """Yield this one and those below it, topmost first, without the empty one."""
        here: FileSystem | None = self
        while here is not None and not here.is_empty_root:
            yield here
            here = here.parent

    def is_readable(self) -> bool:
        """Tell whether its files can be read without unpacking or fetching anything."""
        if self.has_snapshot():
            return True
        cheap = self._changes is not None and (self._ready is None or self._ready())
        return cheap and (self.parent is None or self.parent.is_readable())

    def _from_changes(self) -> bool:
        """Tell whether its files come from its changes; else from its layer, which is there where they cost more."""
        if self._changes is None:
            return False
        return self._ready is None or self._ready() or not self.has_some_layer()

    def has_snapshot(self) -> bool:
        """Tell whether its snapshot exists."""
        return self.is_empty_root or self._present or self._workspace.snapshotter.exists(self.name)

    def changes(self) -> tuple[Change, ...]:
        """Return the changes against the parent."""
        with self._lock:
            if self._held is None:
                if self._changes is not None:
                    self._held = self._changes()
                else:
                    return self._snapshot_changes()
            return self._held

    def _snapshot_changes(self) -> tuple[Change, ...]:
        snapshotter = self._workspace.snapshotter
        self.snapshot()
        own = snapshotter.tree(self.name)
        parent = self.parent
        lower = snapshotter.tree(parent.snapshot() or None) if parent is not None else UnionTree()
        if self._workspace.whole:
            return tuple(diff(lower, own))
        path: str = own.layers[0].path  # type: ignore[attr-defined]
        return tuple(
            iter_changes(
                path,
                lower,
                self._workspace.ownership(path),
                self._workspace.userxattr,
            )
        )

    def tree(self) -> UnionTree:
        """Return the merged tree, to be read."""
        with self._lock:
            if self._tree is None:
                self._tree = self._make_tree()
            return self._tree

    def _make_tree(self) -> UnionTree:
        if self.is_empty_root:
            return UnionTree()
        if self._from_changes() and self.parent is not None and not self.has_snapshot():
            changes = self.changes()
            added = [change.entry for change in changes if isinstance(change, Added)]
            opaques = [change.path for change in changes if isinstance(change, Opaque)]
            return self.parent.tree().with_top(EntryLayer(added, opaques=opaques))
        return self._workspace.snapshotter.tree(self.snapshot())

    def snapshot(self) -> str:
        """Return the name of its snapshot, which is made if it does not exist; "" for the empty one.

        Raises:
            StoreError: neither the snapshot nor what it could be made of is there.
        """
        if self.is_empty_root:
            return ""
        with self._lock:
            if not self._present and not self._workspace.snapshotter.exists(self.name):
                self._materialise()
            self._present = True
            return self.name

    def _materialise(self) -> None:
        if self._workspace.whole:
            self._copy_and_change()
            return
        parent = self.parent.snapshot() if self.parent is not None else ""
        snapshotter = self._workspace.snapshotter
        active = snapshotter.prepare(parent or None)
        try:
            lower, owners = snapshotter.tree(parent or None), self._workspace.ownership(active.upper)
            if self._from_changes():
                write_changes(self.changes(), active.upper, lower, owners, active.userxattr)
            else:
                self._unpack(lambda stream: apply_layer(stream, active.upper, lower, owners, active.userxattr))
            snapshotter.commit(active, self.name)
        except BaseException:
            snapshotter.discard(active)
            raise

    def _copy_and_change(self) -> None:
        """Make a snapshot that is a whole file system of the nearest one below, those between them being skipped."""
        snapshotter = self._workspace.snapshotter
        pending, below = [self], self.parent
        while below is not None and not below.has_snapshot():
            pending.append(below)
            below = below.parent
        active = snapshotter.prepare((below.name or None) if below is not None else None)
        try:
            for item in reversed(pending):
                item._change(active)  # noqa: SLF001  (of the same class)
            snapshotter.commit(active, self.name)
        except BaseException:
            snapshotter.discard(active)
            raise

    def _change(self, active: ActiveSnapshot) -> None:
        """Make the changes of this step alone in a whole file system."""
        problem = ContextError if self._from_changes() else InvalidImageError
        owners = self._workspace.ownership(active.upper)
        with InPlaceWriter(active.upper, owners, devices=active.devices, problem=problem) as writer:
            if self._from_changes():
                apply_changes(self.changes(), writer)
            else:
                self._unpack(lambda stream: apply_to(stream, writer))

    def _unpack(self, apply: Callable[[Readable], ApplyInfo]) -> None:
        record = next((item for item in self._layers.values() if self._has_blob(item)), None)
        if record is None and (base := self._layers.get("")) is not None:
            raise _base_gone(base)
        if record is None:
            raise StoreError(
                f"the snapshot {self.name} is gone, and so is the layer that it could be made of",
                hint="build again with --no-cache",
            )
        self._ensure(record)
        digest = Digest.parse(record.digest)
        progress = self._progress
        label = f"extracting {record.digest}"
        if progress is not None:
            progress.state(VertexState.STARTED)  # again: nobody needed the files before
            progress.status(label, current=0, total=record.size)
        with self._workspace.store.blobs.open_(digest) as blob, open_decompressed(blob) as stream:
            info = apply(stream)
        if str(info.diff_id) != record.diff_id:
            raise DigestMismatchError(
                f"the layer {record.digest} unpacks to {info.diff_id}, not to the {record.diff_id} of its config",
                expected=record.diff_id,
                actual=str(info.diff_id),
                hint="load or pull the image again",
            )
        if progress is not None:
            progress.status(label, current=record.size, total=record.size, done=True)
            progress.state(VertexState.DONE)

    def _has_blob(self, record: LayerRecord) -> bool:
        """Tell whether the bytes of a layer are in the store, or can be had."""
        digest, workspace = Digest.parse(record.digest), self._workspace
        if workspace.store.blobs.size(digest) == record.size:
            return True
        return workspace.lazy is not None and workspace.lazy.has(digest)

    def _ensure(self, record: LayerRecord) -> None:
        """Bring the bytes of a layer into the store where they are not."""
        workspace = self._workspace
        if workspace.lazy is not None:
            workspace.lazy.ensure(Digest.parse(record.digest), self._progress)

    def show_in(self, progress: VertexProgress) -> None:
        """Show the unpacking of a base's layers, should it come to that, as work of the vertex that stands for it."""
        for item in self.own_chain():
            item._progress = progress  # noqa: SLF001  (of the same class)

    def as_source(self) -> FileSystemSource:
        """Return it as a source to copy from."""
        from castoff.ops.sources import FileSystemSource

        return FileSystemSource(self._workspace, self)

    def as_filesystem(self, request: Request) -> FileSystem:
        """Return itself: all of it can be mounted, whatever of it is asked for."""
        del request
        return self

    def has_some_layer(self) -> bool:
        """Tell whether a layer of it, in whichever variant, is in the store or can be had."""
        return any(self._has_blob(record) for record in self._layers.values())

    def known_layer(self) -> LayerRecord | None:
        """Return its layer in the build's variant, where it was made and is in the store or can be had."""
        record = self._layers.get(str(self._workspace.variant)) or self._layers.get("")
        return record if record is not None and self._has_blob(record) else None

    def layer(self) -> LayerRecord:
        """Return its layer in the build's variant, which is in the store then: it is made, or fetched.

        A layer of a base is what it is, whatever the variant.
        """
        record = self.layer_in(self._workspace.variant)
        self._ensure(record)
        return record

    def layer_in(self, variant: LayerVariant) -> LayerRecord:
        """Return its layer in a variant, which is made where it neither is in the store nor can be had."""
        with self._lock:
            record = self._layers.get(str(variant)) or self._layers.get("")
            if record is not None and self._has_blob(record):
                return record
            if (base := self._layers.get("")) is not None:
                raise _base_gone(base)
            record = self._layers[str(variant)] = self._write_layer(variant)
            return record

    @property
    def own_changes(self) -> bool:
        """Whether its changes can be had anew, without its snapshot and without its layer."""
        return self._changes is not None

    def layers(self) -> Mapping[str, LayerRecord]:
        """Return the layers that were made of it, by variant; none of them need be in the store."""
        return dict(self._layers)

    def _write_layer(self, variant: LayerVariant) -> LayerRecord:
        options = LayerOptions(
            epoch=variant.epoch,
            set_times=self._set_times and variant.epoch is not None,
            compression=variant.compression or Compression(),
        )
        with self._workspace.store.blobs.writer() as writer:
            info = write_layer(self.changes(), writer, options)
            digest, size = writer.commit()
        return LayerRecord(str(info.diff_id), str(digest), size, info.size, info.media_type, info.files)

    def record(self) -> CacheRecord | None:
        """Return what to remember of it; None while neither a snapshot nor a layer of it is in the store."""
        layers = {name: layer for name, layer in self._layers.items() if name}
        present = self.has_snapshot()
        if not layers and not present:
            return None
        name = self.name if present or self._lasting else ""
        return CacheRecord(name, self.parent.name if self.parent else "", layers)


def _base_gone(layer: LayerRecord) -> StoreError:
    return StoreError(
        f"the layer {layer.digest} of a base is missing from the store, or not whole",
        hint="load, assemble or build the base again",
    )


def restored(
    workspace: Workspace,
    parent: FileSystem,
    key: CacheKey,
    record: CacheRecord,
    changes: Callable[[], tuple[Change, ...]] | None,
    ready: Callable[[], bool] | None = None,
) -> FileSystem | None:
    """Return the file system that a cache record describes, or None where too much of it is gone.

    Args:
        workspace: where it lives.
        parent: the one below.
        key: the step's cache key.
        record: what was remembered.
        changes: gives the changes anew, for steps that can; their snapshot's name is derived from the key.
        ready: whether they can be had without unpacking or fetching anything; None where they always can.
    """
    if record.parent != parent.name:
        return None
    name = record.snapshot or None
    present = name is not None and workspace.snapshotter.exists(name)
    lasting = name is not None and any(name == content_name(parent.name, layer) for layer in record.layers.values())
    if not present and not lasting:
        name = None
    times = changes is not None
    forms = Forms(name, changes, record.layers, times, present, lasting, ready)
    result = FileSystem(workspace, parent, key, forms)
    if present or result.known_layer() is not None or (lasting and result.has_some_layer()):
        return result
    return result if changes is not None and record.facts.get(ANEW) else None


ANEW = "anew"
"""The fact of a record that needs neither a snapshot nor a layer: its changes are had anew where they are needed."""


def content_name(parent: str, layer: LayerRecord) -> str:
    """Return the name of the snapshot that a layer gives on top of the snapshot `parent`."""
    return snapshot_name(parent, layer.diff_id)


def base_chain(
    workspace: Workspace, bottom: FileSystem, layers: tuple[LayerRecord, ...], key: Callable[[str], CacheKey]
) -> FileSystem:
    """Return the file system of an image's layers on top of the empty one, nothing of it unpacked yet."""
    here = bottom
    for layer in layers:
        here = FileSystem(
            workspace,
            here,
            key(f"{here.key} {layer.diff_id}"),
            Forms(snapshot_name(here.name, layer.diff_id), layers={"": layer}),
        )
    return here
